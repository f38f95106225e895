"""Arguments and results of a detector's methods are recorded, whatever they are made of."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from legacy_adapters.bases.detection import METHODS
from legacy_adapters.recording.methods import IN, OUT, methods_of, plain
from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter
from legacy_adapters.recording.values import flatten
from parity.traces.trace import Trace


class Sample:
    """Looks like mmengine's data elements."""

    def __init__(self, **items):
        self._items = items

    def all_items(self):
        return self._items.items()


@dataclass
class Layout:
    start: int
    boxes: torch.Tensor


class Head(nn.Module):
    def loss(self, feats, batch_data_samples, scale=1.0):
        return {"loss_cls": feats.sum() * scale}

    predict = nn.Identity()  # no method


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = Head()
        self.shared = {}

    def loss(self, inputs, samples):
        return self.head.loss(*self.pre_decoder(inputs), samples, scale=2.0)

    def pre_decoder(self, inputs):
        self.shared["mask"] = inputs > 0
        return (inputs + 1,)


def recorded(folder, **arguments):
    model = Detector()
    recorder = Recorder(TraceWriter(str(folder)), methods=METHODS, **arguments)
    if "aside" in arguments:
        recorder = Recorder(TraceWriter(str(folder)), aside=arguments["aside"](model), methods=METHODS)
    recorder.attach(model)
    with recorder.in_phase("train"):
        model.loss(torch.ones(2), [Sample(img_shape=(4, 5), boxes=torch.zeros(1, 4))])
    with recorder.in_phase("step 1", modules=False):
        model.loss(torch.ones(2), [])
    recorder.writer.finish({}, dict(recorder.coverage(), without_gradient=[]))
    return [(r.kind, r.name, r.slot, r.scope) for r in Trace.load(folder).records]


def test_arguments_and_results_have_the_methods_name_and_the_callers_scope(tmp_path):
    sample = [f"0.{part}" for part in ("img_shape.0", "img_shape.1", "boxes")]
    assert recorded(tmp_path / "t") == [
        ("method_in", "", "loss.inputs", ""),
        *(("method_in", "", f"loss.samples.{part}", "") for part in sample),
        ("method_in", "", "pre_decoder.inputs", ""),
        ("method_out", "", "pre_decoder.0", ""),
        ("method_in", "head", "loss.feats", ""),
        *(("method_in", "head", f"loss.batch_data_samples.{part}", "") for part in sample),
        ("method_in", "head", "loss.scale", ""),
        ("method_out", "head", "loss.loss_cls", ""),
        ("method_out", "", "loss.loss_cls", ""),
    ]


@pytest.mark.parametrize(("passed", "name"), [(("pre_decoder", OUT), ""), (("loss", IN), "head")])
def test_what_a_method_passes_elsewhere_is_recorded_as_part_of_its_arguments_or_result(tmp_path, passed, name):
    def aside(model):
        return lambda *place: {"mask": model.shared["mask"]} if place == (name, *passed) else {}

    method, kind = passed
    assert (kind, name, f"{method}.mask", "") in recorded(tmp_path / "t", aside=aside)


def test_only_methods_are_followed():
    assert [name for name, _ in methods_of(Head(), METHODS)] == ["loss"]


def test_plain_opens_samples_dataclasses_and_numpy_and_leaves_out_the_rest():
    box = torch.ones(4)
    value = dict(
        sample=Sample(instances=Sample(boxes=box), shape=(1, 2), file="a.jpg"), layout=Layout(3, box),
        array=np.array([1.0]), number=np.float32(2.0), words=np.array(["a"]), none=None, module=nn.Identity(),
    )  # fmt: skip
    assert [slot for slot, _ in flatten(plain(value))] == [
        "sample.instances.boxes", "sample.shape.0", "sample.shape.1", "layout.start", "layout.boxes", "array", "number",
    ]  # fmt: skip
