"""Greedy non-maximum suppression as mmcv's compiled CPU operator does it, as plainly as possible: a reference.

It exists so that the legacy side of a comparison does not run the NMS of the port under test. Nothing of that is used
here: no blocks, no early exit; one box after the other, against all boxes that are left. 22,223 boxes of which half are
kept take about two seconds.
"""

from __future__ import annotations

import numpy as np
import torch


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """Return the indices that greedy NMS keeps (github ``open-mmlab/mmcv`` v2.1.0, ``csrc/pytorch/cpu/nms.cpp``).

    Boxes are visited in the order of ``scores.sort(0, descending=True)``, unstable as mmcv's, so the order of equal
    scores is torch's. A visited box is kept and removes every later one with
    ``inter / (area + area' - inter) > iou_threshold``, each operation rounded to the dtype of the boxes.

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2), any unit. float16 is computed in float32; float64, which the compiled
            operator refuses, as it is.
        scores: [N].
        iou_threshold: overlap above which a box is removed; rounded to the dtype of the boxes.
        offset: 0 or 1, added to widths and heights.

    Returns:
        int64 tensor [K], in descending order of score, on the device of the boxes.
    """
    order = scores.detach().sort(0, descending=True)[1]
    values = boxes.detach().cpu()
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    with np.errstate(all="ignore"):  # infinite coordinates follow the rules of IEEE 754 without a word, as in C++
        kept = _kept(values[order.cpu()].numpy(), iou_threshold, offset)
    return order[torch.from_numpy(kept).to(order.device)]


def _kept(boxes: np.ndarray, iou_threshold: float, offset: int) -> np.ndarray:
    """Return the places of the boxes that are kept; ``boxes`` [N, 4] are sorted, the best one first."""
    number = boxes.dtype.type
    threshold, plus, zero = number(iou_threshold), number(offset), number(0)
    x1, y1, x2, y2 = (np.ascontiguousarray(boxes[:, column]) for column in range(4))
    area = (x2 - x1 + plus) * (y2 - y1 + plus)
    left = np.arange(len(boxes))
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        x1, y1, x2, y2, area, first = x1[1:], y1[1:], x2[1:], y2[1:], area[1:], (x1[0], y1[0], x2[0], y2[0], area[0])
        width = _at_least(zero, np.minimum(first[2], x2) - np.maximum(first[0], x1) + plus)
        height = _at_least(zero, np.minimum(first[3], y2) - np.maximum(first[1], y1) + plus)
        inter = width * height
        stays = ~(inter / (first[4] + area - inter) > threshold)  # 0 / 0 is not above any threshold
        if not stays.all():
            left, x1, y1, x2, y2, area = (part[stays] for part in (left, x1, y1, x2, y2, area))
    return np.array(kept, dtype=np.int64)


def _at_least(bound: np.generic, values: np.ndarray) -> np.ndarray:
    """Return the larger of each, ``bound`` where a value is NaN, as ``std::max(bound, value)`` does."""
    return np.where(values > bound, values, bound)
