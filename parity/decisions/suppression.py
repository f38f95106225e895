"""Non-maximum suppression (NMS): boxes that no better kept box covers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from .boxes import iou, iou_error, iou_slope
from .ranking import closest, cut, order, rise_witness, score_gaps, ulp
from .rule import INFINITE, Alternative, Margin, Rule, is_choice, unchosen

#: mmcv shifts boxes by max + 1 before NMS; in [1, 4) a float32 coordinate is rounded by at most this.
SHIFT_ROUNDING = 2.0**-23
_BLOCK = 1024  # boxes whose overlaps are tried at once
_SCANNED = 512  # boxes that are looked at at once for what came close


class Suppression(Rule):
    """The boxes that a greedy NMS keeps, best first; xyxy boxes [n, 4], scores [n], a threshold and a limit."""

    quantity = "score"
    basis = ("boxes", "scores", "iou_threshold", "max_num")
    settings = ("iou_threshold", "max_num")
    options = ("offset",)

    def rests_on(self, slots: Collection[str]) -> bool:
        return "boxes" in slots and "scores" in slots

    def length_margin(self, decision: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Margin | None:
        """Return None: the basis says how many are kept."""
        return None

    def _misfit(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> str:
        if len(decision) != 1 or any(slot not in basis for slot in self.basis) or basis["scores"].dim() != 1:
            return "is not a choice from a list of scores"
        fits = basis["boxes"].shape == (len(basis["scores"]), 4)
        return "" if fits else "is not a choice of boxes with a score each"

    def _margin(
        self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor], errors: Mapping[str, float]
    ) -> Margin:
        """Return by how much the list breaks the rule of greedy NMS.

        The kept boxes must come in descending order of score, none may overlap an earlier one by more than the
        threshold, and every other box that ranks before the end must overlap a better kept one by more than the
        threshold.
        """
        (keep,) = decision.values()
        boxes, scores, limit = basis["boxes"], basis["scores"], int(basis["max_num"])
        if not is_choice(keep, len(boxes)):
            return self.broken(f"is not a list of different boxes below {len(boxes)}")
        if len(keep) > limit:
            return self.broken(f"keeps {len(keep)} boxes, more than {limit}")
        if not len(keep):
            return Margin(self.quantity, INFINITE if len(boxes) else 0.0, 0.0, f"keeps none of {len(boxes)}")
        picked, score_error = scores[keep], errors["scores"]
        rises = picked[1:] - picked[:-1]
        rise = max(rises.max().item(), 0.0) if len(rises) else 0.0
        witness = rise_witness(keep, scores, rises) if rise > 0.0 else ""
        in_order = Margin(self.quantity, rise, 2 * score_error, witness)
        if not in_order.is_tie:
            return in_order
        rest = unchosen(keep, len(boxes))
        if len(keep) == limit:  # cut: what ranks behind the last one was not looked at
            rest = rest[scores[rest] > picked[-1] + 2 * score_error]
        margins = [_kept_too_many(keep, basis, errors["boxes"])] if len(rises) else []
        for block in rest.split(_BLOCK) if len(rest) else ():
            margins.append(_dropped_too_many(block, keep, basis, errors["boxes"], score_error))
        return max(margins, key=lambda one: (max(one.value - one.allowed, 0.0), one.value), default=in_order)

    def _alternatives(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> list[Alternative]:
        (keep,) = decision.values()
        scores = basis["scores"]
        scan = _Scan(keep, basis)
        for block in scan.blocks():
            scan.add(block)
        free = torch.tensor(scan.free, dtype=torch.int64)
        return [*order(keep, scores), *cut(keep, free, scores), *scan.overlap(), *scan.rival()]


def _kept_too_many(keep: Tensor, basis: Mapping[str, Tensor], box_error: float) -> Margin:
    """Return the worst overlap of two of the kept boxes, at least two."""
    boxes, threshold = basis["boxes"][keep], basis["iou_threshold"].item()
    overlaps, errors = iou(boxes, boxes), iou_error(boxes, boxes, box_error + SHIFT_ROUNDING)
    earlier = torch.ones(len(keep), len(keep), dtype=torch.bool).triu(1)
    gaps = torch.where(earlier, overlaps - threshold, -INFINITE)
    one, two = divmod(_worst(gaps, errors), len(keep))
    gap, allowed = overlaps[one, two].item() - threshold, errors[one, two].item()
    covered = f"{int(keep[one])} covers it with IoU {overlaps[one, two].item():.7g}, threshold {threshold:.7g}"
    witness = f"keeps {int(keep[two])}, though the kept {covered}" if gap > 0 else ""
    return Margin("IoU", max(gap, 0.0), allowed, witness)


def _dropped_too_many(
    dropped: Tensor, keep: Tensor, basis: Mapping[str, Tensor], box_error: float, score_error: float
) -> Margin:
    """Return the worst of the ``dropped`` boxes, the one that better kept boxes overlap least."""
    boxes, scores, threshold = basis["boxes"], basis["scores"], basis["iou_threshold"].item()
    # [dropped, kept]
    overlaps = iou(boxes[dropped], boxes[keep])
    errors = iou_error(boxes[dropped], boxes[keep], box_error + SHIFT_ROUNDING)
    better = scores[keep][None] >= scores[dropped][:, None] - 2 * score_error
    covered = torch.where(better, overlaps, -INFINITE)
    best = (covered + errors).argmax(1, keepdim=True)
    gaps, allowed = threshold - covered.gather(1, best)[:, 0], errors.gather(1, best)[:, 0]
    worst = _worst(gaps, allowed)
    gap, most = gaps[worst].item(), threshold - gaps[worst].item()
    reason = f"which no better kept box covers with more than IoU {most:.7g}, threshold {threshold:.7g}"
    if not better[worst].any():
        reason = "although no kept box has a better score"
    witness = f"drops {int(dropped[worst])}, {reason}" if gap > 0 else ""
    return Margin("IoU", max(gap, 0.0), allowed[worst].item(), witness)


def _worst(gaps: Tensor, allowed: Tensor) -> int:
    """Return the flat index of the gap that exceeds what is allowed most; if none does, of the largest."""
    excess = gaps - allowed
    return int(excess.argmax() if bool((excess > 0).any()) else gaps.argmax())


class _Scan:
    """Goes through the boxes that an NMS did not keep, best first, until none behind can be closer.

    ``free`` gathers those that no kept box covers, which only the cut keeps out; without a cut there are none.
    """

    def __init__(self, keep: Tensor, basis: Mapping[str, Tensor]) -> None:
        self._keep, self._boxes, self._scores = keep, basis["boxes"], basis["scores"]
        self._threshold = basis["iou_threshold"].item()
        self._is_cut = len(keep) == int(basis["max_num"])
        largest = self._boxes.abs().max().item() if self._boxes.numel() else 0.0
        self._unit = float(np.spacing(np.float32(largest)))  # of a coordinate
        self.free: list[int] = []
        self._pairs: dict[str, list[tuple[Tensor, ...]]] = {"overlap": self._kept_pairs(), "rival": []}
        self._closest = INFINITE

    def blocks(self) -> Iterator[Tensor]:
        left = unchosen(self._keep, len(self._scores))
        left = left[self._scores[left].argsort(descending=True, stable=True)]
        for block in left.split(_SCANNED) if len(left) and len(self._keep) else ():
            if self._is_cut and self.free and self._least_ulps(block[0]) > self._closest:
                return
            yield block

    def _least_ulps(self, index: Tensor) -> float:
        """Return how many ULPs at least lie between the worst kept box and one from ``index`` on."""
        lowest, best = self._scores[self._keep[-1]], self._scores[self._keep[0]]
        return ((lowest - self._scores[index]) / (2 * ulp(best))).item()

    def add(self, block: Tensor) -> None:
        """Take the next boxes, [b]."""
        overlaps, slopes = self._compare(block)  # [b, k]
        scores, last = self._scores[block], self._scores[self._keep[-1]]
        better = self._scores[self._keep][None] >= scores[:, None]
        covers = better & (overlaps > self._threshold)
        covered = covers.any(1)
        # what ranks behind the last kept box was not looked at; rounding may have covered what was
        seen = (scores > last) | (covered & (scores == last)) if self._is_cut else torch.ones_like(covered)
        self.free += block[~covered & ~seen].tolist()
        if seen.any():
            above = torch.where(better, (overlaps - self._threshold) / slopes, -INFINITE)[seen]
            by = above.argmax(1)
            gaps = (overlaps[seen].gather(1, by[:, None])[:, 0] - self._threshold).abs()
            self._pairs["overlap"].append((gaps, above.gather(1, by[:, None])[:, 0].abs(), block[seen], self._keep[by]))
        if covered.any():
            # it would be kept if it outranked every box that covers it: the best of them is the first in the list
            by = self._keep[covers[covered].int().argmax(1)]
            gaps, ulps = score_gaps(self._scores[by], scores[covered])
            self._pairs["rival"].append((gaps, ulps, by, block[covered]))
            self._closest = min(self._closest, torch.where(gaps == 0, INFINITE, ulps).min().item())

    def _compare(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """Return the IoU with every kept box and what one ULP of the coordinates may change of it."""
        boxes, kept_boxes = self._boxes[block], self._boxes[self._keep]
        return iou(boxes, kept_boxes), self._unit * iou_slope(boxes, kept_boxes, self._unit)

    def _kept_pairs(self) -> list[tuple[Tensor, ...]]:
        if len(self._keep) < 2:
            return []
        overlaps, slopes = self._compare(self._keep)
        one, two = torch.ones_like(overlaps).triu(1).nonzero().unbind(1)
        gaps = (self._threshold - overlaps[one, two]).abs()
        return [(gaps, gaps / slopes[one, two], self._keep[two], self._keep[one])]

    def overlap(self) -> list[Alternative]:
        return self._alternative("overlap", "IoU", "{} behind {}")

    def rival(self) -> list[Alternative]:
        return self._alternative("rival", "score", "{} before {}")

    def _alternative(self, name: str, quantity: str, where: str) -> list[Alternative]:
        if not self._pairs[name]:
            return []
        columns = (torch.cat(parts) for parts in zip(*self._pairs[name]))
        return [closest(name, quantity, *columns, where)]
