"""A run whose final outputs are constant or not finite is no match, and what is alike for a good reason is one."""

import pytest
import torch
from safetensors.torch import save_file

from parity.verdict.outcome import INCOMPARABLE, MATCH, MISMATCH
from tests.models import weights_of

from .synthetic import INF, NAN, Rec, judged

EVIDENCE = [Rec("module_out", "m", [1.0, 2.0], phase="predict")]
BOXES = torch.arange(24, dtype=torch.float32).reshape(6, 4)


def detections(scores, labels=None, boxes=None, image=0):
    count = len(scores)
    labels = torch.arange(count) % 2 if labels is None else torch.tensor(labels)
    values = {"scores": torch.tensor(scores), "labels": labels, "bboxes": BOXES[:count] if boxes is None else boxes}
    return [Rec("tap", "result", value, slot, image, "predict") for slot, value in values.items()]


def losses(**terms):
    return [Rec("loss", name.replace("__", "."), value) for name, value in terms.items()]


VARIED = detections([0.5, 0.4, 0.3])
ONE_ROW = torch.ones(3, 4)

CONSTANT = {
    "one score everywhere": [*detections([0.3] * 4), *detections([0.3] * 2, image=1)],
    "one score up to rounding": detections([0.3, 0.3000001, 0.3, 0.2999999]),
    "one score in each image": [*detections([0.3] * 4), *detections([0.4] * 3, image=1)],
    "one score of single detections": [*detections([0.3]), *detections([0.3], image=1)],
    "saturated": detections([1.0, 1.0, 0.0, 0.0]),
    "a score for each class": detections([0.5, 0.5, 0.5, 0.4, 0.4], labels=[1, 1, 1, 0, 0]),
    "every image alike": [*detections([0.5, 0.4, 0.3]), *detections([0.5, 0.4, 0.3], image=1)],
    "one box everywhere": detections([0.5, 0.4, 0.3], boxes=ONE_ROW),
    "one box in each image": [
        *detections([0.5, 0.4, 0.3], boxes=ONE_ROW),
        *detections([0.5, 0.4, 0.2], boxes=ONE_ROW * 2, image=1),
    ],
    "boxes and masks alike": [
        *detections([0.5, 0.4, 0.3], boxes=ONE_ROW), Rec("tap", "result", torch.ones(3, 4), "masks", 0, "predict"),
    ],
    "a score that is NaN": detections([0.5, NAN, 0.3]),
    "a box that is infinite": detections([0.5, 0.4], boxes=torch.tensor([[0.0, 1, 2, 3], [0, 1, INF, 3]])),
    "a loss that is NaN": [*VARIED, *losses(loss_cls=NAN)],
    "losses alike in all layers": losses(
        d0__loss_cls=0.7, d1__loss_cls=0.7, d0__loss_bbox=0.2, d1__loss_bbox=0.2, loss_cls=0.7
    ),
    "matrices of constants": [
        *VARIED, Rec("param", "a", torch.ones(2, 3), phase="weights"),
        Rec("param", "b", torch.zeros(4, 2), phase="weights"),
        Rec("param", "norm", torch.tensor([1.0, 2.0]), phase="weights"),
    ],
}  # fmt: skip

VARYING = {
    "scores and boxes vary": VARIED,
    "boxes of zeros beside masks that vary": [
        *detections([0.5, 0.4, 0.3], boxes=ONE_ROW * 0), Rec("tap", "result", torch.eye(3), "masks", 0, "predict"),
    ],
    "no detections": detections([]),
    "one detection": detections([0.5]),
    "one image without detections": [*VARIED, *detections([], image=1)],
    "one image of equal scores": [*VARIED, *detections([0.3, 0.3], image=1)],
    "one detection of each class": detections([0.5, 0.4]),
    "two queries that are alike": detections([0.5, 0.5, 0.4], labels=[0, 0, 1]),
    "no objects": losses(d0__loss_cls=0.7, d1__loss_cls=0.6, d0__loss_bbox=0.0, d1__loss_bbox=0.0),
    "boxes that do not move from layer to layer": losses(
        d0__loss_cls=0.7, d1__loss_cls=0.6, d0__loss_bbox=0.2, d1__loss_bbox=0.2
    ),
    "branches that start at zero": [
        *VARIED, Rec("param", "a", torch.eye(2), phase="weights"), Rec("param", "b", torch.zeros(4, 2), phase="weights"),
        Rec("module_out", "branch", torch.zeros(3, 4), phase="predict"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("records", CONSTANT.values(), ids=CONSTANT)
def test_constant_or_infinite_final_outputs_are_not_comparable(tmp_path, records):
    verdict = judged(tmp_path, EVIDENCE + records, EVIDENCE + records)
    assert verdict.outcome == INCOMPARABLE
    assert verdict.reasons[0].startswith("Degenerate: ")


@pytest.mark.parametrize("records", VARYING.values(), ids=VARYING)
def test_what_is_alike_for_a_good_reason_is_no_alarm(tmp_path, records):
    assert judged(tmp_path, EVIDENCE + records, EVIDENCE + records).outcome == MATCH


@pytest.mark.parametrize("records", [detections([0.3, 0.3, 0.3]), detections([0.5, NAN, 0.3])], ids=["constant", "nan"])
def test_only_the_new_side_constant_or_infinite_is_a_mismatch(tmp_path, records):
    assert judged(tmp_path, EVIDENCE + VARIED, EVIDENCE + records).outcome == MISMATCH


def test_a_difference_under_degenerate_outputs_is_told_as_well(tmp_path):
    constant = detections([0.3, 0.3, 0.3])
    verdict = judged(tmp_path, EVIDENCE + constant, EVIDENCE + detections([0.3, 0.3, 0.2]))
    assert verdict.outcome == INCOMPARABLE and "1 of 4 records differs." in verdict.reasons


@pytest.mark.parametrize("value", [0.0, 1.0, 0.01, -0.5])
@pytest.mark.parametrize("checks", ["forward", "loss"])
def test_a_checkpoint_of_constants_is_not_comparable(tiny, tmp_path, value, checks):
    weights = weights_of("tiny_4scale", 0, side="legacy")
    constant = {name: t.fill_(value) if t.is_floating_point() else t for name, t in weights.items()}
    save_file(constant, tmp_path / "constant.safetensors")
    result = tiny("--checkpoint", tmp_path / "constant.safetensors", "--check", checks, "--size", "64x96,64x64", "-q")
    assert result.exit_code == 3, result.output
    assert result.stdout.startswith("INCOMPARABLE Degenerate: ")
