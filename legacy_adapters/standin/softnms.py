"""Soft NMS as mmcv's compiled CPU operator does it, and the groups of NMS, as plainly as possible: a reference.

As :mod:`.nms`, it exists so that the legacy side of a comparison does not run the code of the port under test.
"""

from __future__ import annotations

from typing import List

import numpy as np
import torch


def softnms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    dets: torch.Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> torch.Tensor:
    """Lower the scores of boxes that overlap better ones (github ``open-mmlab/mmcv`` v2.1.0, ``cpu/nms.cpp``).

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2).
        scores: [N].
        dets: buffer [N, 5], into which boxes and scores are written in the order in which they are taken.
        iou_threshold: of methods 0 and 1.
        sigma: of method 2.
        min_score: boxes with a score below are removed.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: 0 or 1, added to widths and heights.

    Returns:
        int64 tensor [K], the boxes that were taken, in that order.
    """
    table = np.column_stack([boxes.detach().numpy(), scores.detach().to(boxes.dtype).numpy()])  # [N, 5]
    number = table.dtype.type
    threshold, spread, least = (number(np.float32(value)) for value in (iou_threshold, sigma, min_score))
    area = (table[:, 2] - table[:, 0] + number(offset)) * (table[:, 3] - table[:, 1] + number(offset))
    index = np.arange(len(table))
    place, count = 0, len(table)
    with np.errstate(all="ignore"):
        while place < count:
            best = place
            if not np.isnan(table[place, 4]):
                best += int(np.nanargmax(table[place:count, 4]))
            for column in (table, area, index):
                first = column[place].copy()
                column[place], column[best] = column[best], first
            dets[place] = torch.from_numpy(table[place].copy())
            overlap = _overlap(table[place], area[place], table[place + 1 : count], area[place + 1 : count], offset)
            table[place + 1 : count, 4] *= _weight(overlap, method, threshold, spread)
            low = table[:count, 4] < least
            low[: place + 1] = False
            for hole in np.flatnonzero(low):  # the last box that is not too low comes in the place of one that is
                while count > hole and low[count - 1]:
                    count -= 1
                if hole >= count:
                    break
                count -= 1
                table[hole], area[hole], index[hole] = table[count], area[count], index[count]
            place += 1
    return torch.from_numpy(index[:count].copy())


def nms_match(dets: torch.Tensor, iou_threshold: float) -> List[List[int]]:
    """Return, for each box that NMS keeps, its index and those of the boxes that it removes, best first.

    Args:
        dets: [N, 5] as (x1, y1, x2, y2, score).
        iou_threshold: overlap from which on a box is removed.
    """
    left = dets[:, 4].sort(0, descending=True)[1].numpy()
    table = dets.detach().numpy()
    area = (table[:, 2] - table[:, 0]) * (table[:, 3] - table[:, 1])
    threshold = table.dtype.type(np.float32(iou_threshold))
    groups = []
    with np.errstate(all="ignore"):
        while len(left):
            best, others = left[0], left[1:]
            removed = _overlap(table[best], area[best], table[others], area[others], 0) >= threshold
            groups.append([int(best)] + [int(other) for other in others[removed]])
            left = others[~removed]
    return groups


def _overlap(box: np.ndarray, area: np.ndarray, others: np.ndarray, areas: np.ndarray, offset: int) -> np.ndarray:
    """Return the IoU of a box [4 or more] with others [n, 4 or more]; of NaN and another the kernel takes the first."""
    plus, zero = others.dtype.type(offset), others.dtype.type(0)
    x1, y1 = (np.where(box[side] < others[:, side], others[:, side], box[side]) for side in (0, 1))
    x2, y2 = (np.where(others[:, side] < box[side], others[:, side], box[side]) for side in (2, 3))
    width, height = x2 - x1 + plus, y2 - y1 + plus
    inter = np.where(zero < width, width, zero) * np.where(zero < height, height, zero)
    return inter / (area + areas - inter)


def _weight(overlap: np.ndarray, method: int, threshold: np.generic, spread: np.generic) -> np.ndarray:
    one = overlap.dtype.type(1)
    if method == 2:
        exponent = torch.from_numpy(-(overlap * overlap) / spread)
        return torch.exp(exponent.double()).numpy().astype(overlap.dtype)
    return np.where(overlap >= threshold, one - overlap if method == 1 else one - one, one)
