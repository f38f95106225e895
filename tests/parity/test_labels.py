"""Label mapping is compared for every class, also for classes that are never detected."""

import json
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from converters.rules.mapping import Keep, Mapping
from legacy_adapters.bases.configs import class_names
from legacy_adapters.tasks import made_up
from parity.report.report import closing_line
from parity.verdict.outcome import INCOMPARABLE, MATCH, MISMATCH
from tests.models import weights_of

from .synthetic import Rec, judged

SHAPES = {"tiny": (3, 2, 60, 3), "full": (6, 3, 900, 80), "few queries": (1, 2, 10, 80), "one class": (2, 1, 5, 1)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_made_up_logits_are_all_different_and_every_class_wins_that_can(shape):
    logits = made_up.logits(torch.zeros(shape))
    assert logits.shape == shape and torch.equal(logits[0], logits[-1])
    for image in logits[-1]:
        assert len(image.sigmoid().unique()) == image.numel()
        assert len(image.argmax(-1).unique()) == min(shape[-1], shape[-2])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_made_up_boxes_are_all_different_and_some_reach_over_the_border(shape):
    boxes = made_up.boxes(torch.zeros(*shape[:-1], 4))
    assert boxes.shape == (*shape[:-1], 4) and len(boxes[-1].reshape(-1, 4).unique(dim=0)) == shape[1] * shape[2]
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    assert (low < 0).any() and (len(boxes[-1][0]) < 20 or (high > 1).any())


class Head(nn.Module):
    """Give logits [1, bs, n, classes] and boxes that no class but 0 would win with."""

    def __init__(self, queries, classes):
        super().__init__()
        self.logits = torch.zeros(1, 2, queries, classes)
        self.logits[..., 0] = 9.0

    def forward(self):
        return self.logits, torch.zeros(*self.logits.shape[:-1], 4)


def best_of(head, most):
    def predict():
        logits, boxes = head()
        found = []
        for image, image_boxes in zip(logits[-1], boxes[-1]):
            scores, pair = image.sigmoid().flatten().topk(most)
            labels = pair % image.size(-1)
            found.append({"labels": labels, "scores": scores, "bboxes": image_boxes[pair // image.size(-1)]})
        return found

    return predict


@pytest.mark.parametrize(
    ("queries", "classes", "most", "runs"), [(60, 3, 50, 1), (900, 80, 300, 1), (10, 80, 5, 10), (4, 5, 1, 3)]
)
def test_inference_is_repeated_until_every_class_is_among_the_detections(queries, classes, most, runs):
    head = Head(queries, classes)
    found = made_up.run(best_of(head, most), head)
    assert {label for image in found for label in image["labels"].tolist()} == set(range(classes))
    assert 2 <= len(found) <= 2 * runs
    assert head()[0] is head.logits  # in place for the run only


def test_logits_of_every_level_of_a_dense_head_are_made_up_and_its_boxes_are_its_own():
    layer = nn.Conv2d(4, 3, 1)
    levels = [torch.randn(2, 4, 5, 6), torch.randn(2, 4, 2, 3)]

    def predict():
        of_levels = [layer(level) for level in levels]
        assert [made.shape for made in of_levels] == [(2, 3, 5, 6), (2, 3, 2, 3)]
        winners = [made.flatten(2).argmax(1) for made in of_levels]
        return [{"labels": torch.cat([level[image] for level in winners])} for image in range(2)]

    found = made_up.run(predict, layer)
    assert all(torch.bincount(image["labels"], minlength=3).min() >= 11 for image in found)


class Named(NamedTuple):
    logits: torch.Tensor
    boxes: torch.Tensor


@pytest.mark.parametrize("hold", [list, lambda both: Named(*both), lambda both: dict(zip(("logits", "boxes"), both))])
def test_predictions_are_replaced_in_whatever_holds_them(hold):
    head = Head(60, 3)
    plain, forward, given = made_up.run(best_of(head, 50), head), head.forward, []

    def best() -> list:
        out = head()
        given.append(type(out))
        both = tuple(out.values()) if isinstance(out, dict) else tuple(out)
        return best_of(lambda: both, 50)()

    head.forward = lambda: hold(forward())
    found = made_up.run(best, head)
    assert given == [type(hold(forward()))]
    assert all(torch.equal(one[name], two[name]) for one, two in zip(plain, found) for name in one)


def test_a_module_that_gives_something_else_is_left_alone():
    class Other(nn.Module):
        def forward(self):
            return {"scores": torch.zeros(3)}

    module = Other()
    assert made_up.run(lambda: [module()], module) == []


def detections(labels, phase="predict", name="result", image=0):
    count = len(labels)
    values = {"scores": torch.arange(count) / 10 + 0.1, "bboxes": torch.arange(count * 4.0).reshape(count, 4)}
    values["labels"] = torch.tensor(labels)
    return [Rec("tap", name, value, slot, image, phase) for slot, value in values.items()]


RULES = Mapping("toy", (Keep("**"),), ("cls.weight",))
BASE = [
    Rec("param", "cls.weight", torch.randn(80, 2, generator=torch.Generator().manual_seed(0)), phase="weights"),
    Rec("module_out", "m", [1.0, 2.0], phase="predict"),
]


def test_classes_among_the_detections_are_counted(tmp_path):
    side = [*BASE, *detections([3, 7, 3]), *detections([7, 9], image=1)]
    verdict = judged(tmp_path, side, side, mapping=RULES)
    assert verdict.outcome == MATCH
    assert verdict.labels.lines() == [
        "classes detected 3 of 80: labels of 5 detections in 2 images",
        "label mapping not checked: no module is known to give class logits and boxes",
    ]


@pytest.mark.parametrize(
    ("legacy", "new", "outcome", "told"),
    [
        (["car", "bus"], ["car", "bus"], MATCH, "class names of both configs equal: 2"),
        (["car", "bus", "van"], ["bus", "car", "van"], MISMATCH,
         "The configs call label 0 otherwise: `car` is `bus` on the new side, and 1 more."),
        (["car", "bus"], ["car"], MISMATCH, "The legacy config names 2 classes and the new one 1."),
        (["car"], None, MATCH, "class names not compared: the new config tells none"),
    ],
)  # fmt: skip
def test_classes_that_the_configs_call_otherwise_are_a_mismatch(tmp_path, legacy, new, outcome, told):
    on = dict(on_legacy=dict(class_names=legacy), on_new=dict(class_names=new))
    verdict = judged(tmp_path, BASE, BASE, mapping=RULES, **on)
    assert (verdict.outcome, verdict.labels.lines()) == (outcome, [told])
    assert verdict.reasons == (() if outcome == MATCH else (told,))
    assert outcome == MATCH or closing_line(verdict).startswith("MISMATCH")


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        (dict(type="Own", classes=["a", "b"]), ["a", "b"]),
        (dict(type="Own", classes="a"), ["a"]),
        (dict(type="Own", metainfo=dict(classes=("a", "b"))), ["a", "b"]),
        (dict(type="Known"), ["k"]),
        (dict(type="Repeat", dataset=dict(type="Concat", datasets=[dict(type="Known", classes=("b", "a"))])), ["b", "a"]),
        (dict(type="Repeat", dataset=dict(type="Known")), ["k"]),
        (dict(type="Own"), None),
        (None, None),
    ],
)
def test_names_of_classes_are_those_of_the_dataset_within(dataset, names):
    assert class_names(dataset, dict(Known=("k",)).get) == names


def test_a_label_given_as_another_is_named_with_both(tmp_path):
    result = detections([0, 1])
    one = [*BASE, *result, *detections([0, 1, 2, 2], "labels", "labels")]
    two = [*BASE, *result, *detections([0, 1, 1, 1], "labels", "labels")]
    verdict = judged(tmp_path, one, two, mapping=RULES)
    assert verdict.labels.lines() == [
        "classes detected 2 of 80: labels of 2 detections in 1 image",
        "label mapping checked for 2 of 80 classes, by made-up predictions",
        "  label 2 is given as 1 (2 made-up detections)",
    ]


def test_made_up_predictions_of_one_side_only_are_not_comparable(tmp_path):
    one = [*BASE, *detections([0, 1]), *detections([0, 1], "labels", "labels")]
    verdict = judged(tmp_path, one, [*BASE, *detections([0, 1])], mapping=RULES)
    assert verdict.outcome == INCOMPARABLE
    assert any("not made on the new side" in reason for reason in verdict.reasons)


@pytest.fixture
def without_class_2(tmp_path):
    """Weights under which class 2 is never detected."""
    weights = weights_of("tiny_4scale", 0, side="legacy")
    for name, value in weights.items():
        if "cls_branches" in name and name.endswith("bias"):
            value[2] = -30.0
    save_file(weights, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_a_wrong_label_of_a_class_that_is_never_detected_is_found_and_named(tiny, without_class_2, planted):
    result = tiny(
        "--check", "forward", "--checkpoint", without_class_2, "--json",
        "--new-adapter", planted("class_2_called_1"),
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    verdict = json.loads(result.stdout)
    assert verdict["labels"]["detected"] == {"legacy": [0, 1], "new": [0, 1]} and verdict["labels"]["classes"] == 3
    assert verdict["labels"]["given"] == {"legacy": [0, 1, 2], "new": [0, 1]}
    assert [(one["legacy"], one["new"]) for one in verdict["labels"]["relabelled"]] == [(2, 1)]
    assert verdict["first_divergence"]["where"] == "bbox_head"
