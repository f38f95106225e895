"""Distinct queries of a whole batch: non-maximum suppression that makes the host wait once, or not at all.

Greedy suppression is the only fixed point of "kept unless a kept box of higher rank overlaps it too much". A fixed
number of sweeps towards it needs no answer from the device; whether they reached it is a flag there. Overlaps are
computed as :mod:`ddq_port.ops.nms` does, in boxes shifted by the largest coordinate plus one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from ..queries import DistinctSelection

#: Sweeps on a GPU before the host asks; a chain of suppressions is rarely longer than ten.
SWEEPS = 16
#: Boxes in score order that are looked at first, per distinct box that is wanted; then four times as many.
_FIRST, _MORE = 2.25, 4
#: The largest coordinate of a box with centre and size in [0, 1]: that of a token without a valid proposal.
_INVALID_EDGE = 1.5


@dataclass(frozen=True)
class Kept:
    """The boxes that suppression keeps.

    Attributes:
        mask: [bs, n] bool.
        settled: [] bool, whether the sweeps reached the fixed point; where not, ``mask`` is of no use.
    """

    mask: Tensor
    settled: Tensor


def suppress(boxes: Tensor, candidates: Tensor, iou_threshold: float, sweeps: int | None, edge: Tensor) -> Kept:
    """Run greedy suppression over boxes that come best first.

    Args:
        boxes: [bs, n, 4] xyxy, best first.
        candidates: [bs, n] bool, those that take part.
        iou_threshold: a box that overlaps a kept one of higher rank by more goes.
        sweeps: so many, or None for as many as are needed, after each of which the host asks.
        edge: [bs] largest coordinate of each image's boxes; they are shifted by one more before overlaps are computed.
    """
    boxes = boxes + (edge[:, None, None] + 1)
    above = _overlap_too_much(boxes, iou_threshold).triu_(1) * candidates[:, :, None]  # [bs, n, n], only i < j
    keep = candidates
    left = sweeps
    while True:
        before = keep
        # exact: sums of at most n ones
        keep = candidates & (torch.bmm(keep[:, None].to(above.dtype), above)[:, 0] == 0)
        if left is None:
            if torch.equal(before, keep):
                return Kept(keep, keep.new_ones(()))
            continue
        left -= 1
        if left <= 0:
            return Kept(keep, (before == keep).all())


def _overlap_too_much(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Return [bs, n, n]: 1 where two boxes overlap by more than the threshold, else 0, in the boxes' dtype."""
    x1, y1, x2, y2 = boxes.unbind(-1)  # each [bs, n]
    areas = (x2 - x1) * (y2 - y1)
    width = torch.minimum(x2[:, :, None], x2[:, None]).sub_(torch.maximum(x1[:, :, None], x1[:, None])).clamp_(min=0)
    height = torch.minimum(y2[:, :, None], y2[:, None]).sub_(torch.maximum(y1[:, :, None], y1[:, None])).clamp_(min=0)
    inter = width.mul_(height)
    union = torch.add(areas[:, :, None], areas[:, None], out=height).sub_(inter)
    return inter.div_(union).gt_(iou_threshold)


#: Arguments and result as of :func:`suppress`.
Suppression = Callable[[Tensor, Tensor, float, int | None, Tensor], Kept]


def still_distinct(
    boxes: Tensor, scores: Tensor, candidates: Tensor, selection: DistinctSelection, sweeps: int | None,
    suppression: Suppression = suppress,
) -> tuple[Kept, Tensor]:  # fmt: skip
    """Find which of the candidate queries stay distinct after a decoder layer.

    Args:
        boxes: [bs, num_matching, 4] cxcywh in [0, 1].
        scores: [bs, num_matching] in [0, 1].
        candidates: [bs, num_matching] bool, the queries that take part.
        selection: threshold and mask rule.
        sweeps: as in :func:`suppress`.
        suppression: what is run in place of :func:`suppress`.

    Returns:
        The survivors, and ``active`` [bs, num_matching] bool, those that enter the next layer's loss, filter and
        selection under the mask rule.
    """
    xyxy = bbox_cxcywh_to_xyxy(boxes.float())
    edge = xyxy.amax(-1).masked_fill(~candidates, -torch.inf).amax(-1)  # [bs], of the candidates
    order = scores.float().sort(dim=1, descending=True, stable=True).indices  # [bs, num_matching]
    # [bs, num_matching, 4] and [bs, num_matching], best first
    ranked = xyxy.gather(1, order[..., None].expand(-1, -1, 4)), candidates.gather(1, order)
    kept = suppression(*ranked, selection.iou_threshold, sweeps, edge)
    survivors = torch.zeros_like(candidates).scatter(1, order, kept.mask)  # [bs, num_matching]
    active = survivors | survivors[:, :1] if selection.mask_rule == "legacy" else survivors
    return Kept(survivors, kept.settled), active


@dataclass(frozen=True)
class Proposals:
    """Distinct tokens of every image, best first.

    Attributes:
        tokens: [bs, num_queries] indices; where ``valid`` is False, any.
        valid: [bs, num_queries] bool, False behind the last distinct token of an image that has fewer.
        coords: [bs, num_queries, 4] of these tokens, as given by ``coords_of``.
    """

    tokens: Tensor
    valid: Tensor
    coords: Tensor


def select_distinct(
    scores: Tensor, coords_of: Callable[[Tensor], Tensor], any_invalid: Tensor, iou_threshold: float, num_queries: int
) -> Proposals:
    """Choose the best ``num_queries`` tokens that do not duplicate a better one; the host waits once.

    Args:
        scores: [bs, num_tokens] in [0, 1].
        coords_of: function of indices [bs, n] that returns logits of cxcywh boxes, [bs, n, 4], of these tokens.
        any_invalid: [] bool, whether some token's box is (1, 1, 1, 1).
        iou_threshold: a box with a larger IoU with a better kept box is dropped.
        num_queries: at most so many are chosen.

    Raises:
        ValueError: if there is NaN among scores or boxes.
    """
    bs, num_tokens = scores.shape
    on_cpu = scores.device.type == "cpu"
    looked_at, sweeps = min(num_tokens, int(_FIRST * num_queries)), None if on_cpu else SWEEPS
    # whole, as the legacy code sorts: all tokens without a valid box tie, and the first of them is kept
    order = scores.float().sort(dim=1, descending=True).indices  # [bs, num_tokens]
    while True:
        ranked = order[:, :looked_at]
        coords = coords_of(ranked)  # [bs, looked_at, 4]
        boxes = bbox_cxcywh_to_xyxy(coords.sigmoid().float())
        edge = torch.where(any_invalid, boxes.amax((1, 2)).clamp(min=_INVALID_EDGE), boxes.amax((1, 2)))  # [bs]
        everyone = torch.ones_like(ranked, dtype=torch.bool)
        kept = suppress(boxes, everyone, iou_threshold, sweeps, edge)
        counts = kept.mask.sum(1)
        not_a_number = torch.isnan(boxes).any() | torch.isnan(scores).any()
        # one copy: [3] bool
        settled, enough, bad = torch.stack(
            [kept.settled, (counts >= num_queries).all(), not_a_number]
        ).tolist()
        if bad:
            raise ValueError("boxes or scores of the encoder hold NaN; look for the first non-finite value upstream.")
        if not settled:
            sweeps = None
        elif enough or looked_at == num_tokens:
            break
        else:
            looked_at = min(num_tokens, _MORE * looked_at)
    size = min(num_queries, looked_at)
    # kept ones first, in their order; [bs, size] places among those looked at
    places = (~kept.mask).to(torch.uint8).sort(dim=1, stable=True).indices[:, :size]
    valid = torch.arange(size, device=scores.device) < counts[:, None]
    # [bs, size] and [bs, size, 4]
    tokens, chosen = ranked.gather(1, places), coords.gather(1, places[..., None].expand(-1, -1, 4))
    return _padded(tokens, valid, chosen, num_queries)


def select_dense(scores: Tensor, max_num: int) -> Tensor:
    """Return the indices of the ``max_num`` best scores of each image, [bs, n] of [bs, num_tokens], best first."""
    return scores.sort(dim=1, descending=True).indices[:, :max_num]


def _padded(tokens: Tensor, valid: Tensor, coords: Tensor, length: int) -> Proposals:
    short = length - tokens.shape[1]
    if short:
        pad = torch.nn.functional.pad
        tokens, valid, coords = pad(tokens, (0, short)), pad(valid, (0, short)), pad(coords, (0, 0, 0, short))
    return Proposals(tokens, valid, coords)
