"""Our NMS against the recorded decisions of mmcv's compiled operator, and against a direct loop."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ddq_port.ops import nms as nms_module
from ddq_port.ops.nms import batched_nms_keep, descending_order, greedy_keep, nms

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden" / "nms"
GOLDEN_NAMES = sorted(path.stem for path in GOLDEN_FOLDER.glob("*.npz"))
PREFIXES = (0, 1, 2, 7, 60, 300, 900, 1350, 5000, 50_000)


@dataclass(frozen=True)
class NmsGolden:
    """One recorded case; see ``tools/record_nms_golden.py`` for the fields."""

    name: str
    boxes: Tensor
    scores: Tensor
    iou_threshold: float
    offset: int
    order: Tensor
    keep_nms: Tensor
    keep_batched: Tensor


def load_golden(name: str) -> NmsGolden:
    """Read ``tests/golden/nms/<name>.npz``."""
    with np.load(GOLDEN_FOLDER / f"{name}.npz") as data:
        return NmsGolden(
            name=name,
            boxes=torch.from_numpy(data["boxes"]),
            scores=torch.from_numpy(data["scores"]),
            iou_threshold=float(data["iou_threshold"]),
            offset=int(data["offset"]),
            order=torch.from_numpy(data["order"]).long(),
            keep_nms=torch.from_numpy(data["keep_nms"]).long(),
            keep_batched=torch.from_numpy(data["keep_batched"]).long(),
        )


@pytest.fixture(scope="module", params=GOLDEN_NAMES)
def golden(request: pytest.FixtureRequest) -> NmsGolden:
    """Every recorded case, one after another."""
    return load_golden(request.param)


def same_ranks(golden: NmsGolden) -> bool:
    """Does this machine's sort put tied scores where the recording machine put them?"""
    return torch.equal(golden.scores.sort(0, descending=True)[1], golden.order)


def shifted(boxes: Tensor) -> Tensor:
    """The shift of mmcv's ``batched_nms`` for class id 1."""
    return boxes + (torch.ones(len(boxes)) * (boxes.max() + torch.tensor(1.0)))[:, None]


def mmcv_batched_nms(golden: NmsGolden) -> Tensor:
    """``mmcv/ops/nms.py::batched_nms`` line by line for one class, on this machine's sort."""
    keep = greedy_keep(shifted(golden.boxes), golden.scores.sort(0, descending=True)[1], golden.iou_threshold)
    if len(golden.scores) < nms_module.SPLIT_THRESHOLD:
        return keep
    total_mask = torch.zeros(len(golden.scores), dtype=torch.bool)
    total_mask[keep] = True
    keep = total_mask.nonzero().view(-1)
    return keep[golden.scores[keep].sort(descending=True)[1]]


def expected_nms(golden: NmsGolden) -> Tensor:
    if same_ranks(golden):
        return golden.keep_nms
    order = golden.scores.sort(0, descending=True)[1]
    return greedy_keep(golden.boxes, order, golden.iou_threshold, golden.offset)


def expected_batched(golden: NmsGolden) -> Tensor:
    return golden.keep_batched if same_ranks(golden) or not len(golden.scores) else mmcv_batched_nms(golden)


def loop_nms(boxes: Tensor, order: Tensor, iou_threshold: float, offset: int = 0) -> list[int]:
    """The C++ loop of mmcv, box against box, in numpy scalars of the boxes' dtype."""
    b = boxes.numpy()
    threshold, zero, plus = b.dtype.type(iou_threshold), b.dtype.type(0), b.dtype.type(offset)
    areas = (b[:, 2] - b[:, 0] + plus) * (b[:, 3] - b[:, 1] + plus)
    kept: list[int] = []
    with np.errstate(all="ignore"):
        for j in order.tolist():
            for i in kept:
                width = max(zero, min(b[i, 2], b[j, 2]) - max(b[i, 0], b[j, 0]) + plus)
                height = max(zero, min(b[i, 3], b[j, 3]) - max(b[i, 1], b[j, 1]) + plus)
                inter = width * height
                if inter / (areas[i] + areas[j] - inter) > threshold:
                    break
            else:
                kept.append(j)
    return kept


def random_boxes(count: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Crowded boxes [count, 4] xyxy and scores [count]."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator, dtype=dtype) * 60
    size = torch.rand(count, 2, generator=generator, dtype=dtype) * 30 + 5
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    return boxes, torch.rand(count, generator=generator, dtype=dtype)


def test_goldens_are_present() -> None:
    assert len(GOLDEN_NAMES) == 23
    sizes = {len(load_golden(name).scores) for name in GOLDEN_NAMES}
    assert {0, 1, 9_999, 10_000, 22_223} <= sizes


def test_decisions_under_recorded_order(golden: NmsGolden) -> None:
    keep = greedy_keep(golden.boxes, golden.order, golden.iou_threshold, golden.offset)
    assert torch.equal(keep, golden.keep_nms)


def test_batched_decisions_under_recorded_order(golden: NmsGolden) -> None:
    boxes = shifted(golden.boxes) if len(golden.boxes) else golden.boxes
    keep = greedy_keep(boxes, golden.order, golden.iou_threshold)
    if len(golden.scores) < nms_module.SPLIT_THRESHOLD:
        assert torch.equal(keep, golden.keep_batched)
    else:
        assert torch.equal(keep.sort()[0], golden.keep_batched.sort()[0])
        assert torch.equal(golden.scores[keep], golden.scores[golden.keep_batched])


def test_nms_equals_compiled(golden: NmsGolden) -> None:
    keep = nms(golden.boxes, golden.scores, golden.iou_threshold, golden.offset)
    assert keep.dtype == torch.int64
    assert torch.equal(keep, expected_nms(golden))


def test_batched_equals_compiled(golden: NmsGolden) -> None:
    keep = batched_nms_keep(golden.boxes, golden.scores, golden.iou_threshold)
    assert keep.dtype == torch.int64
    assert torch.equal(keep, expected_batched(golden))


def test_max_num_is_a_prefix(golden: NmsGolden) -> None:
    whole, whole_batched = expected_nms(golden), expected_batched(golden)
    for limit in PREFIXES:
        keep = nms(golden.boxes, golden.scores, golden.iou_threshold, golden.offset, max_num=limit)
        assert torch.equal(keep, whole[:limit]), limit
        keep = batched_nms_keep(golden.boxes, golden.scores, golden.iou_threshold, max_num=limit)
        assert torch.equal(keep, whole_batched[:limit]), limit


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 40])
@pytest.mark.parametrize("tied", [slice(0, 2), slice(2, 5), slice(3, 5), slice(4, 30), slice(0, 1_200)])
def test_prefix_with_ties_placed_around_the_cut(tied: slice, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties inside, across and behind the cut, above the split threshold; boxes do not overlap, so all are kept."""
    monkeypatch.setattr(nms_module, "SPLIT_THRESHOLD", 200)
    count = 1_200
    column = torch.arange(count, dtype=torch.float32)[:, None]
    boxes = torch.cat([column, column, column + 0.5, column + 0.5], dim=1)
    ranks = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    sorted_scores = torch.linspace(1, 0, count, dtype=torch.float64)
    sorted_scores[tied] = sorted_scores[tied.start].item()
    scores = torch.empty(count, dtype=torch.float64)
    scores[ranks] = sorted_scores
    case = NmsGolden("ties", boxes, scores, 0.5, 0, descending_order(scores), ranks, ranks)
    assert torch.equal(batched_nms_keep(boxes, scores, 0.5, max_num=limit), mmcv_batched_nms(case)[:limit])


def test_early_exit_is_taken_only_without_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int | None] = []

    def spy(boxes: Tensor, order: Tensor, thr: float, offset: int = 0, max_num: int | None = None) -> Tensor:
        limits.append(max_num)
        return greedy_keep(boxes, order, thr, offset, max_num)

    monkeypatch.setattr(nms_module, "greedy_keep", spy)
    for name, expected in (("n22223_80", [51]), ("n10000_80_ties", [51, None]), ("n9999_80_ties", [50])):
        limits.clear()
        case = load_golden(name)
        batched_nms_keep(case.boxes, case.scores, case.iou_threshold, max_num=50)
        assert limits == expected, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7, 0.8])
def test_equals_the_loop(dtype: torch.dtype, offset: int, threshold: float) -> None:
    boxes, scores = random_boxes(600, seed=11, dtype=dtype)
    expected = loop_nms(boxes, descending_order(scores), threshold, offset)
    assert nms(boxes, scores, threshold, offset).tolist() == expected


def test_longest_chain_inside_and_across_blocks() -> None:
    """Each box suppresses exactly its successor: every second one stays, over several blocks and tiles."""
    count = 3000
    left = torch.arange(count, dtype=torch.float32)
    boxes = torch.stack([left, torch.zeros(count), left + 2, torch.ones(count)], dim=1)
    keep = nms(boxes, torch.arange(count, 0, -1).float(), 0.3)
    assert keep.tolist() == list(range(0, count, 2))


def test_hand_computed() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30], [0, 0, 10, 6]])
    scores = torch.tensor([0.9, 0.8, 0.1, 0.7])
    # overlaps with box 0: 0.5, 0, 0.6; of box 3 with box 1: 50 / 60
    assert nms(boxes, scores, 0.5).tolist() == [0, 1, 2]
    assert nms(boxes, scores, 0.49).tolist() == [0, 2]
    assert nms(boxes, scores, 0.9).tolist() == [0, 1, 3, 2]
    assert nms(boxes, scores, 0.9, max_num=2).tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_boxes_are_computed_in_float32(dtype: torch.dtype) -> None:
    boxes, scores = random_boxes(300, seed=5)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    assert torch.equal(nms(boxes, scores, 0.7), nms(boxes.float(), scores, 0.7))


def test_empty_gives_empty_int64() -> None:
    for operator in (nms, batched_nms_keep):
        keep = operator(torch.zeros(0, 4), torch.zeros(0), 0.5)
        assert keep.dtype == torch.int64 and keep.shape == (0,)


def test_inputs_are_untouched_and_gradients_ignored() -> None:
    boxes, scores = random_boxes(400, seed=7)
    before = boxes.clone(), scores.clone()
    boxes.requires_grad_(), scores.requires_grad_()
    for operator in (nms, batched_nms_keep):
        assert not operator(boxes, scores, 0.5).requires_grad
    assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])


@pytest.mark.parametrize("operator", [nms, batched_nms_keep])
@pytest.mark.parametrize("victim", ["boxes", "scores"])
def test_nan_is_refused(operator: Callable[..., Tensor], victim: str) -> None:
    boxes, scores = random_boxes(20, seed=1)
    {"boxes": boxes[3], "scores": scores[3:4]}[victim][0] = float("nan")
    with pytest.raises(ValueError, match=rf"{operator.__name__}: {victim} of shape .* must hold no NaN, found 1"):
        operator(boxes, scores, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 5), torch.zeros(3), 0.5), "boxes must have shape [N, 4], found [3, 5]"),
        ((torch.zeros(3, 4), torch.zeros(2), 0.5), "scores must have shape [3], found [2]"),
        ((torch.zeros(3, 4).long(), torch.zeros(3), 0.5), "boxes must be floating point, found torch.int64"),
        ((torch.zeros(3, 4), torch.zeros(3), 0.5, 2), "offset must be 0 or 1, found 2"),
        ((torch.zeros(3, 4), torch.zeros(3), -0.5), "iou_threshold must be at least 0, found -0.5"),
        ((torch.zeros(3, 4), torch.zeros(3), 0.5, 0, -1), "max_num must be None or at least 0, found -1"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        nms(*arguments)
