"""Assignments: to which object each anchor or proposal belongs, by thresholds of their overlaps."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from .ranking import closest, ulp
from .rule import INFINITE, Alternative, Margin, Rule

#: By how much a rule is broken that any change of an overlap would keep: more than nothing.
_LEAST = 2.0**-126


class Assignment(Rule):
    """The object of each box by its overlaps [k objects, n boxes], as mmdet's ``MaxIoUAssigner`` gives it.

    A box is 1 + the object that it overlaps most, by ``positive`` or more; else 0 if it overlaps none by ``negative``
    and some by ``lowest`` or more; else -1. Where ``least`` is finite, an object is then given the boxes that it overlaps
    most, if that is as much: all of them with ``all_best``, else one. Of two such objects the later one has the box.
    """

    quantity = "IoU"
    basis = ("overlaps", "positive", "negative", "lowest", "least", "all_best")
    settings = ("positive", "negative", "lowest", "least", "all_best")

    def rests_on(self, slots: Collection[str]) -> bool:
        return "overlaps" in slots

    def _misfit(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> str:
        if len(decision) != 1 or any(slot not in basis for slot in self.basis) or basis["overlaps"].dim() != 2:
            return "is not an assignment by overlaps"
        (given,), (objects, boxes) = decision.values(), basis["overlaps"].shape
        if given.shape != (boxes,):
            return f"assigns {len(given)} boxes, not {boxes}"
        inside = not boxes or -1 <= int(given.min()) <= int(given.max()) <= objects
        return "" if inside else f"assigns an object that is none of the {objects}"

    def _margin(
        self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor], errors: Mapping[str, float]
    ) -> Margin:
        """Return how far overlaps are, at most, from where they would have to be for this assignment."""
        (given,), overlaps, allowed = decision.values(), basis["overlaps"], 2 * errors["overlaps"]
        if not overlaps.numel():
            return self.broken("assigns boxes where there are no objects") if given.any() else Margin(self.quantity, 0.0, 0.0)
        boxes = _by_threshold(given, basis)
        if bool(basis["least"].isfinite()):
            ranked = _Ranked.of(given, basis)
            boxes = torch.maximum(torch.minimum(boxes, ranked.boxes), ranked.missed)
            worst, value = int(ranked.objects.argmax()), ranked.objects.max().item()
            if value > boxes.max().item():
                return Margin(self.quantity, value, allowed, f"does not give object {worst + 1} its best box")
        worst, value = int(boxes.argmax()), boxes.max().item()
        return Margin(self.quantity, value, allowed, f"gives box {worst} {int(given[worst])}" if value > 0 else "")

    def _alternatives(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> list[Alternative]:
        (given,), overlaps = decision.values(), basis["overlaps"]
        if not overlaps.numel():
            return []
        largest = overlaps.max(0).values
        edges = torch.stack([basis["positive"], basis["negative"]]).reshape(2, 1)
        gaps, numbers = (largest - edges).abs().min(0).values, torch.arange(len(given))
        found = [closest("threshold", self.quantity, gaps, gaps / ulp(largest), numbers, given, "box {}, given {}")]
        if bool(basis["least"].isfinite()) and overlaps.size(1) > 1:
            (first, second), (one, two) = (each.unbind(1) for each in overlaps.topk(2, 1))
            gaps = first - second
            found.append(closest("best", self.quantity, gaps, gaps / ulp(first), one, two, "box {} or {}"))
        return found


def _by_threshold(given: Tensor, basis: Mapping[str, Tensor]) -> Tensor:
    """Return by how much the thresholds forbid what each box [n] is given."""
    overlaps, positive, lowest = basis["overlaps"], basis["positive"], basis["lowest"]
    negative = torch.minimum(basis["negative"], positive)  # a positive box is none that is negative
    largest, own = overlaps.max(0).values, overlaps.gather(0, (given - 1).clamp(min=0)[None])[0]
    taken = torch.maximum(largest, positive) - own
    left = torch.maximum(lowest - largest, _below(largest, negative))
    ignored = torch.minimum(torch.maximum(negative - largest, _below(largest, positive)), _below(largest, lowest))
    return torch.where(given > 0, taken, torch.where(given == 0, left, ignored)).clamp(min=0.0)


def _below(values: Tensor, edge: Tensor) -> Tensor:
    """Return by how much values are too large to be below an edge; one that is on it is by the least."""
    return torch.where(values == edge, _LEAST, values - edge)


class _Ranked:
    """What giving each object its best boxes says of an assignment.

    Attributes:
        boxes: by how much it forbids what each box [n] is given.
        missed: the least for each box [n] that is the best of an object and given otherwise, else 0.
        objects: by how much each object [k] lacks its best box.
    """

    def __init__(self, boxes: Tensor, missed: Tensor, objects: Tensor) -> None:
        self.boxes, self.missed, self.objects = boxes, missed, objects

    @classmethod
    def of(cls, given: Tensor, basis: Mapping[str, Tensor]) -> _Ranked:
        overlaps, least = basis["overlaps"], basis["least"]
        best, number = overlaps.max(1, keepdim=True).values, torch.arange(1, len(overlaps) + 1)[:, None]  # [k, 1]
        short, mine = best - overlaps, given == number  # [k, n]
        has = torch.where(mine, short, INFINITE)
        if not bool(basis["all_best"]):
            has = has.masked_fill(torch.arange(len(given)) != has.argmin(1, keepdim=True), INFINITE)
        boxes = torch.maximum(has, least - best).min(0).values
        # an object's best box may be given to a later one, if it is its best, too
        served = torch.where(mine, short, torch.where(given > number, short + boxes, INFINITE)).min(1).values
        reached = best >= least
        objects = torch.where(reached[:, 0], torch.minimum(served, (best - least)[:, 0] + _LEAST), 0.0)
        sure = (short == 0) & reached
        if not bool(basis["all_best"]):
            sure &= sure.sum(1, keepdim=True) == 1
        last = (number * sure).max(0).values  # [n]
        return cls(boxes, torch.where((last > 0) & (last != given), _LEAST, 0.0).double(), objects)
