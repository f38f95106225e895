"""Overlaps of boxes, and how far they are off where coordinates are."""

from __future__ import annotations

import torch
from torch import Tensor


def iou(one: Tensor, two: Tensor) -> Tensor:
    """Return the IoU of all pairs [n, k] of boxes [n, 4] and [k, 4] xyxy; 0 for boxes without area."""
    low = torch.maximum(one[:, None, :2], two[None, :, :2])
    high = torch.minimum(one[:, None, 2:], two[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (one, two)]
    return (inter / (areas[0][:, None] + areas[1][None] - inter)).nan_to_num(0.0)


def iou_slope(one: Tensor, two: Tensor, least: float) -> Tensor:
    """Bound by how much the IoU of all pairs [n, k] changes per unit that every coordinate is off.

    ``least`` is the extent below which a box counts as that large.
    """
    extents = [(boxes[:, 2:] - boxes[:, :2]).amin(-1).clamp(min=least) for boxes in (one, two)]
    return 8 / torch.minimum(extents[0][:, None], extents[1][None])


def iou_error(one: Tensor, two: Tensor, error: float) -> Tensor:
    """Bound the error of the IoU of all pairs, if every coordinate may be off by ``error``."""
    return (error * iou_slope(one, two, error)).clamp(max=0.5)
