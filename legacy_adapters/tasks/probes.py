"""Inputs that a model's own data hardly ever gives a tapped function, for both sides alike.

An NMS that asks ``>=`` where the other asks ``>`` decides alike on random boxes, for no overlap is the threshold to the
last bit. Here some are: all coordinates are whole numbers, so that each side's own arithmetic (another format of boxes,
a shift of all of them) is exact, and an overlap of p/q is rounded once, to the same number as a threshold of p/q.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Iterator, Tuple

import torch

#: Phase of the records of these calls.
PHASE = "nms"
#: From so many boxes on mmcv's ``batched_nms`` goes another way.
MANY = 10_000
_GAP = 2  # between clusters


def boxes_at_threshold(
    iou_threshold: float, max_num: int, like: torch.Tensor
) -> Iterator[Tuple[torch.Tensor, torch.Tensor]]:
    """Yield boxes and scores to try an NMS with: few boxes, then more than :data:`MANY`.

    Boxes come in clusters: a base, and one that overlaps it by the threshold exactly, hardly more or hardly less, along
    x or y; one that only a removed box would remove. There are more clusters than ``max_num``, and no equal scores.

    Args:
        iou_threshold: of the NMS, in (0, 1); taken as the nearest fraction with a denominator up to 100.
        max_num: how many boxes are kept at most.
        like: gives dtype and device.

    Yields:
        boxes [n, 4] xyxy, whole numbers from 0 on; scores [n] in (0, 1).
    """
    part = Fraction(iou_threshold).limit_denominator(100)
    clusters = _clusters(4 * part.numerator, 4 * part.denominator)
    boxes, scores, left = [], [], 0
    for number in range(max_num + 1):
        cluster = clusters[number % len(clusters)]
        place = 1 - (number * 7919 % (max_num + 1)) / (max_num + 1)  # in another order than that of the boxes
        for rank, (x1, y1, x2, y2) in enumerate(cluster):
            boxes.append((left + x1, y1, left + x2, y2))
            scores.append(0.1 + 0.8 * (place - 0.2 * rank / (max_num + 1)))
        left += max(x2 for _, _, x2, _ in cluster) + _GAP
    few = len(boxes)
    yield _tensors(boxes, scores, like)
    copies = MANY + 1 - few
    if copies > 0:
        boxes += [(left, 0, left + 4 * part.denominator, 1)] * copies
        scores += [0.09 * (1 - number / copies) for number in range(copies)]
    yield _tensors(boxes, scores, like)


def _clusters(part: int, whole: int) -> list:
    """Return clusters of boxes whose overlap with the first is about ``part / whole``, best first."""
    clusters = []
    for other in (part, part + 1, part - 1):
        along_x = [(0, 0, whole, 1), (0, 0, other, 1)]
        clusters += [along_x, [(y1, x1, y2, x2) for x1, y1, x2, y2 in along_x]]
    # the second is removed by the first; the third would be by the second alone
    third = -(-(part + 1) * (part + 1) // whole)
    return [*clusters, [(0, 0, whole, 1), (0, 0, part + 1, 1), (0, 0, third, 1)]]


def _tensors(boxes: list, scores: list, like: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    made = dict(dtype=like.dtype, device=like.device)
    return torch.tensor(boxes, **made), torch.tensor(scores, **made)
