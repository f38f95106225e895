"""Exact greedy non-maximum suppression (NMS) in plain torch, block by block, with early exit.

The decisions equal those of mmcv's compiled CPU operator bit for bit (github ``open-mmlab/mmcv`` v2.1.0,
``mmcv/ops/csrc/pytorch/cpu/nms.cpp``; the file is the same in 2.0.0rc4 and 1.4.7), and :func:`batched_nms_keep` those
of ``mmcv/ops/nms.py::batched_nms`` with one class. The candidates are taken in score order in blocks: each block is
tested against the boxes kept so far, then within itself, so memory is bounded by one tile and the work stops at the
``max_num``-th kept box. An exact prefix costs only what the prefix needs.

The order of *tied* scores is that of ``torch.sort`` without ``stable=True``, as in mmcv. On CPU it differs from a
stable sort's; torch promises nothing about it. With torch 2.13 it was the same for 1 and 2 threads and for
``ATEN_CPU_CAPABILITY`` default, avx2 and avx512.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

SPLIT_THRESHOLD = 10_000
"""Number of boxes from which mmcv's ``batched_nms`` runs NMS per class (its default ``split_thr``)."""

# (candidates per block, kept boxes per tile). A CPU tile stays below 32,768 elements, from where torch splits an
# operation over threads: waiting for them at every small step made a busy machine up to 30 times slower.
# On a GPU the number of launches counts.
_CPU_TILE = (128, 255)
_GPU_TILE = (1024, 8192)
# Steps towards the kept boxes of a block before asking whether there was a change.
_GPU_STEPS = 4
# Candidates in the first block on CPU; each block is twice as long as the one before. Few boxes often suffice, and a
# small model's selection, too, then goes from block to block as a large one's does.
_CPU_START = 16


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0, max_num: int | None = None) -> Tensor:
    """Return the indices of the boxes that greedy NMS keeps, in descending order of score.

    A box goes when a kept box of higher rank overlaps it with ``inter / (area_i + area_j - inter) > iou_threshold``,
    computed in the dtype of ``boxes`` with one rounding per operation and the threshold rounded to that dtype, as
    mmcv's CPU operator does. (mmcv's CUDA kernel compares ``inter > iou_threshold * union``: on CUDA tensors a pair
    within one rounding of the threshold may be decided differently there.)

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2), any unit. float32 and float64 are used as they are, float16 and bfloat16 are
            computed in float32 (mmcv takes float32 only). Infinite coordinates follow IEEE rules as in mmcv.
        scores: [N], any floating dtype; ranks come from ``scores.sort(0, descending=True)``.
        iou_threshold: intersection over union above which a box is suppressed, at least 0.
        offset: 0 or 1, added to widths and heights (1 for the pixel-inclusive convention).
        max_num: stop after this many kept boxes; the result is the exact prefix of the full one. None keeps all.

    Returns:
        int64 tensor [K] of indices into ``boxes``, on the device of ``boxes``.

    Raises:
        ValueError: on wrong shapes, NaN in ``boxes`` or ``scores``, ``offset`` not in (0, 1), or a negative
            ``iou_threshold`` or ``max_num``.
    """
    _check_inputs("nms", boxes, scores, max_num)
    _check_no_nan("nms", boxes, scores)
    return greedy_keep(boxes, descending_order(scores), iou_threshold, offset, max_num)


def batched_nms_keep(boxes: Tensor, scores: Tensor, iou_threshold: float, max_num: int | None = None) -> Tensor:
    """Return the indices kept by mmcv's ``batched_nms`` when every box has class id 1, with early exit.

    Equals ``mmcv.ops.batched_nms(boxes, scores, torch.ones(N), dict(type='nms', iou_threshold=...))[1][:max_num]``
    (github ``open-mmlab/mmcv`` v2.1.0, ``mmcv/ops/nms.py``), the call by which DDQ picks distinct queries. Three of its
    traits are visible and kept: all boxes are shifted by ``boxes.max() + 1`` first, which changes the rounding of
    every area and overlap; below ``SPLIT_THRESHOLD`` boxes the order is that of NMS; from there on the kept boxes are
    put in index order and sorted by score once more, so tied scores may come in another order.

    That second sort is unstable over *all* kept boxes, so the place of tied boxes depends on boxes far below the cut.
    A prefix is therefore taken from an early exit only if the first ``max_num + 1`` kept scores strictly decrease
    (no tie within the prefix or across its end); otherwise the full result is computed and cut. Equal scores in the
    prefix, common in half precision, cost a full NMS.

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2), any unit.
        scores: [N].
        iou_threshold: as in :func:`nms`.
        max_num: length of the wanted prefix; None returns all.

    Returns:
        int64 tensor [K] of indices into ``boxes``.

    Raises:
        ValueError: on wrong shapes, NaN in ``boxes`` or ``scores``, or a negative ``iou_threshold`` or ``max_num``.
    """
    _check_inputs("batched_nms_keep", boxes, scores, max_num)
    _check_no_nan("batched_nms_keep", boxes, scores)
    if boxes.shape[0] == 0:
        return _no_indices(boxes)
    shifted = boxes.detach() + (boxes.detach().max() + 1)  # class id 1 times (max + 1), rounded as in mmcv
    order = descending_order(scores)
    if boxes.shape[0] < SPLIT_THRESHOLD:
        return greedy_keep(shifted, order, iou_threshold, 0, max_num)
    return _split_path_keep(shifted, scores, order, iou_threshold, max_num)


def descending_order(scores: Tensor) -> Tensor:
    """Return the ranks of mmcv: ``scores.sort(0, descending=True)``, unstable, as an int64 tensor [N]."""
    return scores.detach().sort(0, descending=True)[1]


@torch.no_grad()
def greedy_keep(
    boxes: Tensor, order: Tensor, iou_threshold: float, offset: int = 0, max_num: int | None = None
) -> Tensor:
    """Run greedy NMS over boxes visited in a given order.

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2), any unit.
        order: int64 [N], indices into ``boxes``, best first.
        iou_threshold: as in :func:`nms`.
        offset: 0 or 1.
        max_num: stop after this many kept boxes; None keeps all.

    Returns:
        int64 tensor [K]: the kept entries of ``order``, in their order.

    Raises:
        ValueError: if ``offset`` is neither 0 nor 1, or ``iou_threshold`` is negative.
    """
    if offset not in (0, 1):
        raise ValueError(f"greedy_keep: offset must be 0 or 1, found {offset!r}; use 1 for pixel-inclusive boxes only.")
    if iou_threshold < 0:
        raise ValueError(f"greedy_keep: iou_threshold must be at least 0, found {iou_threshold}; pass one in [0, 1].")
    boxes = boxes.float() if boxes.dtype in (torch.float16, torch.bfloat16) else boxes
    limit = len(order) if max_num is None else min(max_num, len(order))
    kept = _KeptBoxes(boxes, offset, torch.tensor(iou_threshold, dtype=boxes.dtype))
    for candidates in _blocks(order, kept.tile[0] if boxes.is_cuda else _CPU_START, kept.tile[0]):
        if kept.count >= limit:
            break
        kept.offer(candidates)
    return kept.indices()[:limit]


class _KeptBoxes:
    """Boxes kept so far, stored by coordinate, and the test of new candidates against them."""

    def __init__(self, boxes: Tensor, offset: int, threshold: Tensor) -> None:
        self._x1, self._y1, self._x2, self._y2 = (boxes[:, i].contiguous() for i in range(4))
        self._areas = (self._x2 - self._x1 + offset) * (self._y2 - self._y1 + offset)  # [N]
        self._offset = offset
        self._threshold = threshold
        self._parts: list[Tensor] = []
        # Rows of (x1, y1, x2, y2, area), [5, capacity]; the first `count` columns are in use.
        self._columns = boxes.new_empty((5, 1024))
        self._empty = _no_indices(boxes)
        self.tile: tuple[int, int] = _GPU_TILE if boxes.is_cuda else _CPU_TILE
        self._steps = _GPU_STEPS if boxes.is_cuda else 1
        # Multiplying by a mask made once is cheap; `triu_` on every block wakes all threads whatever the size.
        self._upper = boxes.new_ones((self.tile[0], self.tile[0])).triu_(diagonal=1)
        self.count = 0

    def indices(self) -> Tensor:
        """Return all kept indices, int64 [count], in the order in which they were kept."""
        return torch.cat(self._parts) if self._parts else self._empty  # [count]

    def offer(self, candidates: Tensor) -> None:
        """Keep those of ``candidates`` (int64 [B], best first) that no kept box suppresses, greedily."""
        columns = self._gather(candidates)  # [5, B]
        for start in range(0, self.count, self.tile[1]):
            rivals = self._columns[:, start : min(start + self.tile[1], self.count)]
            candidates, columns = _chosen(self._suppresses(rivals, columns).amax(0) == 0, candidates, columns)
            if candidates.numel() == 0:
                return
        self._append(*_chosen(self._greedy_within(columns), candidates, columns))

    def _greedy_within(self, columns: Tensor) -> Tensor:
        """Resolve greedy NMS among the boxes of one block, [5, B], best first; return who is kept, bool [B].

        The kept set is the only fixed point of ``keep[j] = no i < j with keep[i] and i suppresses j``; iterating from
        "kept unless anyone suppresses it" reaches it after as many steps as the longest chain, usually a handful. More
        steps change nothing; on a GPU some are made before the host waits for an answer.
        """
        size = columns.shape[1]
        earlier = self._suppresses(columns, columns).mul_(self._upper[:size, :size])  # [B, B], only i < j
        keep = earlier.amax(0) == 0
        while True:
            for _ in range(self._steps):
                before, keep = keep, (earlier * keep[:, None]).amax(0) == 0
            if torch.equal(before, keep):
                return keep

    def _gather(self, index: Tensor) -> Tensor:
        # [len(index)] each -> [5, len(index)]
        return torch.stack([part[index] for part in (self._x1, self._y1, self._x2, self._y2, self._areas)])

    def _append(self, index: Tensor, columns: Tensor) -> None:
        end = self.count + index.numel()
        if end > self._columns.shape[1]:
            grown = self._columns.new_empty((5, max(end, 2 * self._columns.shape[1])))
            grown[:, : self.count] = self._columns[:, : self.count]
            self._columns = grown
        self._columns[:, self.count : end] = columns
        self._parts.append(index)
        self.count = end

    def _suppresses(self, first: Tensor, second: Tensor) -> Tensor:
        """Return [A, B]: 1 where box i of ``first`` [5, A] overlaps box j of ``second`` [5, B] too much, else 0.

        The sequence of operations, and the rounding of each, is that of the C++ loop; do not reorder or fuse. Ones and
        zeros stay in the boxes' dtype: comparing in place and ``amax`` are several times faster than bool ``any``.
        """
        x1, y1, x2, y2, area = first[:, :, None].unbind(0)  # each [A, 1]
        width = self._extent(x1, x2, second[0], second[2])  # [A, B]
        height = self._extent(y1, y2, second[1], second[3])
        inter = width.mul_(height)
        union = torch.add(area, second[4], out=height).sub_(inter)
        return inter.div_(union).gt_(self._threshold)  # 0 / 0 of boxes without area compares as false, as in C++

    def _extent(self, low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> Tensor:
        """Return the overlap of two intervals, [A, B], at least 0."""
        extent = torch.minimum(high, other_high).sub_(torch.maximum(low, other_low))
        if self._offset:
            extent.add_(self._offset)
        # Of inf - inf = NaN, C++ `std::max(0.f, nan)` makes 0 and clamp makes NaN. Either way the overlap ends as 0, or
        # as NaN, which is never above a threshold of 0 or more.
        return extent.clamp_(min=0)


def _split_path_keep(
    shifted: Tensor, scores: Tensor, order: Tensor, iou_threshold: float, max_num: int | None
) -> Tensor:
    """Follow mmcv's path for many boxes: NMS, mask of kept boxes in index order, second sort."""
    if max_num is not None:
        leading = greedy_keep(shifted, order, iou_threshold, 0, max_num + 1)
        values = scores.detach()[leading]
        if leading.numel() <= max_num:  # NMS kept no more than that: the result is complete
            return _resort(scores, leading)[:max_num]
        if bool((values[:-1] > values[1:]).all()):
            return leading[:max_num]
    return _resort(scores, greedy_keep(shifted, order, iou_threshold))[:max_num]


def _resort(scores: Tensor, keep: Tensor) -> Tensor:
    """Put kept indices in ascending order, then sort them by score as mmcv does."""
    keep = keep.sort()[0]
    return keep[scores.detach()[keep].sort(descending=True)[1]]


def _blocks(order: Tensor, size: int, largest: int) -> Iterator[Tensor]:
    """Cut ``order`` into blocks; the first has ``size`` entries, the next ones twice as many up to ``largest``."""
    start = 0
    while start < len(order):
        yield order[start : start + size]
        start, size = start + size, min(2 * size, largest)


def _chosen(mask: Tensor, candidates: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the entries of ``candidates`` [B] and ``columns`` [5, B] where ``mask`` [B] is True."""
    # [k], the number of True; asked for once, because a GPU is waited for whenever a mask is counted
    places = mask.nonzero().view(-1)
    return candidates[places], columns[:, places]


def _no_indices(boxes: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.int64, device=boxes.device)


def _check_inputs(caller: str, boxes: Tensor, scores: Tensor, max_num: int | None) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{caller}: boxes must have shape [N, 4], found {list(boxes.shape)}; pass xyxy boxes.")
    if scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"{caller}: scores must have shape [{boxes.shape[0]}], found {list(scores.shape)}; pass one score per box."
        )
    if not boxes.is_floating_point():
        raise ValueError(f"{caller}: boxes must be floating point, found {boxes.dtype}; convert with boxes.float().")
    if max_num is not None and max_num < 0:
        raise ValueError(f"{caller}: max_num must be None or at least 0, found {max_num}; pass None to keep all.")


def _check_no_nan(caller: str, boxes: Tensor, scores: Tensor) -> None:
    if not bool(torch.isnan(boxes).any() | torch.isnan(scores).any()):
        return
    for name, tensor in (("boxes", boxes), ("scores", scores)):
        bad = int(torch.isnan(tensor).sum())
        if bad:
            raise ValueError(
                f"{caller}: {name} of shape {list(tensor.shape)} must hold no NaN, found {bad}; "
                "look for the first non-finite value upstream."
            )
