"""Soft non-maximum suppression, and NMS that tells which boxes each kept one stands for, in plain torch.

The decisions equal those of mmcv's compiled CPU operators (github ``open-mmlab/mmcv`` v2.1.0,
``mmcv/ops/csrc/pytorch/cpu/nms.cpp``; the file is the same in 1.4.7). So do the scores of :func:`softnms`, bit for bit,
but for the gaussian method: its exponential is rounded once from float64, where C's ``expf`` gives another last bit for
7 of 10,000 values.
"""

from __future__ import annotations

import torch
from torch import Tensor

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2


@torch.no_grad()
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap better ones; write boxes and scores into ``dets``, in place.

    The best box that is left is taken, and the others' scores are multiplied by a weight; a box whose score then is
    below ``min_score`` goes. In the place of one that goes comes the last one that stays, as in the kernel, which
    decides between equal scores: of these the first is taken.

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2), any unit; float64 works too, which the compiled operator refuses.
        scores: [N].
        dets: buffer [N, 5] for boxes and scores in the order in which they are taken; rows beyond K stay as they are.
        iou_threshold: overlap from which on the naive and the linear method change a score.
        sigma: of the gaussian method.
        min_score: scores below go.
        method: 0 (naive) makes scores 0, 1 (linear) multiplies by 1 - overlap, 2 (gaussian) by exp(-overlap^2 / sigma).
        offset: 0 or 1, added to widths and heights.

    Returns:
        int64 tensor [K], the boxes that were taken, in that order.
    """
    columns = torch.cat([boxes.t(), _areas(boxes, offset)[None]])  # [5, N], by place
    score, index = scores.to(boxes.dtype).clone(), torch.arange(len(boxes), device=boxes.device)
    numbers = torch.tensor([iou_threshold, sigma, min_score], dtype=torch.float32)  # rounded as by the binding
    threshold, spread, least = numbers.to(score).unbind(0)
    taken, count = 0, len(boxes)
    while taken < count:
        best = taken + _first_largest(score[taken:count])
        for values in (columns, score, index):
            values[..., [taken, best]] = values[..., [best, taken]]
        dets[taken, :4], dets[taken, 4] = columns[:4, taken], score[taken]
        taken += 1
        overlaps = _overlaps(columns[:, taken - 1], columns[:, taken:count], offset)
        score[taken:count] *= _weights(overlaps, threshold, spread, method)
        stays = ~(score[taken:count] < least)
        left = int(stays.sum())
        if left < count - taken:
            holes = taken + (~stays[:left]).nonzero().view(-1)  # [holes]
            movers = taken + left + stays[left:].nonzero().view(-1).flip(0)  # [holes]
            for values in (columns, score, index):
                values[..., holes] = values[..., movers]
            count = taken + left
    return index[:count]


@torch.no_grad()
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Return, for each box that greedy NMS keeps, its index and those of the boxes that it removes, best first.

    Args:
        dets: [N, 5] as (x1, y1, x2, y2, score).
        iou_threshold: overlap from which on a box is removed.
    """
    order = dets[:, 4].sort(0, descending=True)[1]
    columns = torch.cat([dets[:, :4].t(), _areas(dets, 0)[None]])[:, order]  # [5, N], best first
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).to(dets)
    groups = []
    while order.numel():
        removed = torch.cat([order.new_ones(1).bool(), _overlaps(columns[:, 0], columns[:, 1:], 0) >= threshold])  # [n]
        groups.append(order[removed].tolist())
        order, columns = order[~removed], columns[:, ~removed]
    return groups


def _areas(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)


def _overlaps(one: Tensor, others: Tensor, offset: int) -> Tensor:
    """Return the IoU of one box [5] with others [5, n], each as (x1, y1, x2, y2, area): [n]."""
    sides = []
    for low, high in ((0, 2), (1, 3)):
        extent = _smaller(one[high], others[high]) - _larger(one[low], others[low]) + offset
        sides.append(_larger(extent.new_zeros(()), extent))
    inter = sides[0] * sides[1]
    return inter / (one[4] + others[4] - inter)


def _weights(overlaps: Tensor, threshold: Tensor, spread: Tensor, method: int) -> Tensor:
    if method == GAUSSIAN:
        return torch.exp((-(overlaps * overlaps) / spread).double()).to(overlaps.dtype)
    lowered = torch.zeros_like(overlaps) if method == NAIVE else 1 - overlaps
    return torch.where(overlaps >= threshold, lowered, torch.ones_like(overlaps))


def _first_largest(scores: Tensor) -> int:
    """Return where the kernel finds the largest score: one that is NaN is passed over, unless it is the first."""
    if bool(scores[0].isnan()):
        return 0
    return int(scores.masked_fill(scores.isnan(), -float("inf")).argmax())


def _larger(first: Tensor, second: Tensor) -> Tensor:
    """Return the larger of each, the first where one is NaN, as ``std::max`` does."""
    return torch.where(first < second, second, first)


def _smaller(first: Tensor, second: Tensor) -> Tensor:
    """Return the smaller of each, the first where one is NaN, as ``std::min`` does."""
    return torch.where(second < first, second, first)
