"""Matching costs of all layers and images at once, of mmdet's cost classes, and the matching of all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmdet.models.task_modules.assigners import BBoxL1Cost, FocalLossCost, IoUCost
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .noise import Objects

_EPS = 1e-6  # of mmdet's bbox_overlaps


def check_costs(costs: Sequence[object], where: str) -> None:
    """Refuse costs that :func:`cost_matrix` does not have.

    Raises:
        ValueError: naming the first one.
    """
    for cost in costs:
        known = type(cost) in (FocalLossCost, BBoxL1Cost, IoUCost) and not getattr(cost, "binary_input", False)
        if not known or getattr(cost, "iou_mode", "giou") not in ("iou", "giou"):
            raise ValueError(
                f"numerics='fast': {where} has the cost {type(cost).__name__}; expected FocalLossCost, BBoxL1Cost or "
                "IoUCost, or numerics='legacy'."
            )


def cost_matrix(costs: Sequence[object], scores: Tensor, boxes: Tensor, objects: Objects) -> Tensor:
    """Return the summed costs of giving each query each object.

    Args:
        costs: objects of mmdet's cost classes.
        scores: [sets, bs, n, num_classes], what the class cost takes for logits.
        boxes: [sets, bs, n, 4] cxcywh in [0, 1].
        objects: of the images.

    Returns:
        [sets, bs, n, most objects]; columns of padded objects are of no use.
    """
    with torch.no_grad():
        return sum(_COSTS[type(cost)](cost, scores, boxes, objects) for cost in costs)


def _focal(cost: FocalLossCost, scores: Tensor, boxes: Tensor, objects: Objects) -> Tensor:
    # [bs, most] -> [sets, bs, n, most]
    labels = objects.labels[:, None].expand(*scores.shape[:-1], -1)
    p = scores.gather(-1, labels).sigmoid()  # [sets, bs, n, most]
    negative = -(1 - p + cost.eps).log() * (1 - cost.alpha) * p.pow(cost.gamma)
    positive = -(p + cost.eps).log() * cost.alpha * (1 - p).pow(cost.gamma)
    return (positive - negative) * cost.weight


def _l1(cost: BBoxL1Cost, scores: Tensor, boxes: Tensor, objects: Objects) -> Tensor:
    # [bs, most, 4] xyxy in [0, 1], then the same for every set
    targets = objects.boxes / objects.sizes
    if cost.box_format == "xywh":
        targets = bbox_xyxy_to_cxcywh(targets)
    else:
        boxes = bbox_cxcywh_to_xyxy(boxes)
    # [sets, bs, n, 4] and [sets, bs, most, 4] -> [sets, bs, n, most]
    return torch.cdist(boxes, targets.to(boxes.dtype).expand(len(boxes), -1, -1, -1), p=1) * cost.weight


def _iou(cost: IoUCost, scores: Tensor, boxes: Tensor, objects: Objects) -> Tensor:
    pixels = bbox_cxcywh_to_xyxy(boxes) * objects.sizes
    return -overlaps(pixels[:, :, :, None], objects.boxes[:, None], cost.iou_mode == "giou") * cost.weight


_COSTS = {FocalLossCost: _focal, BBoxL1Cost: _l1, IoUCost: _iou}


def overlaps(first: Tensor, second: Tensor, generalised: bool, eps: float = _EPS) -> Tensor:
    """Return IoU or generalised IoU of boxes xyxy, [..., 4] each, shapes broadcast: as mmdet's ``bbox_overlaps``."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    inter = _area((high - low).clamp(min=0))
    areas = [_area(boxes[..., 2:] - boxes[..., :2]) for boxes in (first, second)]
    union = (areas[0] + areas[1] - inter).clamp(min=eps)
    ious = inter / union
    if not generalised:
        return ious
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    hull = _area((high - low).clamp(min=0)).clamp(min=eps)
    return ious - (hull - union) / hull


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]  # not `prod`, whose gradient makes a GPU wait


def match(cost: np.ndarray, counts: Sequence[int], active: np.ndarray) -> np.ndarray:
    """Match one query to each object at the least cost, for each set and image.

    Args:
        cost: [sets, bs, n, most].
        counts: objects of each image.
        active: [sets, bs, n] bool, queries that take part.

    Returns:
        int64 [4, pairs] of sets, images, queries and objects, in this order of sorting.

    Raises:
        ValueError: if a cost is not finite.
    """

    def solve(number: int, image: int) -> tuple[np.ndarray, np.ndarray]:
        places = active[number, image].nonzero()[0]
        rows, columns = linear_sum_assignment(cost[number, image, places, : counts[image]])
        return places[rows], columns

    return pairs_of(solve, len(cost), counts)


def pairs_of(solve: Callable[[int, int], tuple[np.ndarray, np.ndarray]], num_sets: int, counts: Sequence[int]) -> np.ndarray:
    """Put the pairs of all sets and images together.

    Args:
        solve: returns queries and objects that are pairs, both [n], of a set and an image.
        num_sets: of predictions.
        counts: objects of each image; one without any has no pairs.

    Returns:
        int64 [4, pairs] of sets, images, queries and objects.
    """
    found = [np.empty((4, 0), dtype=np.int64)]
    for number in range(num_sets):
        for image in (i for i, count in enumerate(counts) if count):
            queries, objects = solve(number, image)
            same = np.full((2, len(queries)), [[number], [image]])
            found.append(np.concatenate([same, [queries, objects]]))  # [4, pairs of the image]
    return np.concatenate(found, axis=1)  # [4, pairs of all]
