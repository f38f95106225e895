"""A forced run records its own values and goes on with those of another run."""

import inspect
from collections import namedtuple

import pytest
import torch
from torch import nn

from legacy_adapters.recording.forcing import Forcing
from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter
from legacy_adapters.recording.values import changed, changed_call, flatten
from parity.traces.trace import Trace
from parity.verdict.isolation import write_forcing

Pair = namedtuple("Pair", "a b")


class Chain(nn.Module):
    """Three layers; ``factor`` spoils what comes out of the second, ``slope`` its gradient."""

    def __init__(self, factor=1.0, slope=1.0):
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(3, 3) for _ in range(3))
        self.factor, self.slope = factor, slope
        two = self.two.forward
        self.two.forward = lambda input: self._spoilt(two(input))

    def _spoilt(self, y):
        return y * self.factor * self.slope - (y * self.factor * (self.slope - 1)).detach()

    def forward(self, x):
        return self.three(self.two(self.one(x)).relu())


def run(folder, net, force=None):
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    recorder = Recorder(TraceWriter(str(folder)), gradient_flow=True, forcing=force)
    recorder.attach(net)
    with recorder.in_phase("train"):
        net(torch.ones(2, 3)).square().sum().backward()
        for name, parameter in net.named_parameters():
            recorder.add("grad", name, 0, parameter.grad)
    recorder.writer.finish({}, dict(recorder.coverage(), without_gradient=[]))
    return Trace.load(folder)


def differing(one, two):
    return {(r.kind, r.name) for r in one.records if two.by_key[r.key].digest != r.digest}


@pytest.mark.parametrize(
    ("error", "own"),
    [
        (dict(factor=1.5), {("module_out", "two"), ("in_grad", "two"), ("grad", "two.weight"), ("grad", "two.bias")}),
        # a power of two, for the forward values to stay the same bits
        (dict(slope=2.0), {("in_grad", "two"), ("grad", "two.weight"), ("grad", "two.bias")}),
    ],
    ids=["forward", "backward only"],
)
def test_only_the_module_with_the_error_differs(tmp_path, error, own):
    right = run(tmp_path / "right", Chain())
    wrong = run(tmp_path / "wrong", Chain(**error))
    force = Forcing(write_forcing(tmp_path / "forced.json", right, {}))
    isolated = run(tmp_path / "isolated", Chain(**error), force)
    assert differing(right, wrong) > own and differing(right, isolated) == own


def test_another_shape_is_not_forced(tmp_path):
    right = run(tmp_path / "right", Chain())
    force = Forcing(write_forcing(tmp_path / "forced.json", right, {}))
    key = ("train", "module_out", "one", 0, "")
    assert force.value(key, torch.zeros(2, 3)) is not None
    assert force.value(key, torch.zeros(3, 3)) is None
    assert force.value(key, torch.zeros(2, 3, dtype=torch.float64)) is None
    assert force.value(key, right.tensor(right.by_key[key])) is None
    assert force.value(("train", "module_out", "none", 0, ""), torch.zeros(2, 3)) is None


def test_values_are_changed_inside_every_structure_and_kept_where_nothing_changes():
    value = {"a": (torch.ones(1), [2, None]), "b": Pair(True, "text"), "c": 1.5}
    found = changed(value, lambda slot, tensor: tensor * 0)
    assert isinstance(found["b"], Pair) and found["b"].b == "text" and found["b"].a == 0
    assert [(slot, tensor.item()) for slot, tensor in flatten(found)] == [
        ("a.0", 0.0), ("a.1.0", 0), ("b.0", 0), ("c", 0.0),
    ]  # fmt: skip
    assert changed(value, lambda slot, tensor: None) is value
    assert value["c"] == 1.5


def test_arguments_are_changed_by_name_and_given_as_they_were():
    def forward(x, y, *more, scale=1.0, **rest):
        return None

    def change(slot, tensor):
        return tensor * 10 if slot in ("x", "y", "more.1", "scale", "extra.deep") else None

    signature = inspect.signature(forward)
    args, kwargs = changed_call(signature, (1, 2, 3, 4), dict(scale=5, extra={"deep": 6}), change)
    assert args == (10, 20, 3, 40) and kwargs == dict(scale=50, extra={"deep": 60})
    assert changed_call(signature, (1,), dict(y=2), change) == ((10,), dict(y=20, scale=10.0))
