"""Tell how close each recorded decision came to being otherwise.

One trace is enough. A decision that only a few units in the last place hold up will fall otherwise on another machine,
with other kernels or another thread count, and nobody is to blame; one that is far from that must be the same anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..traces.kinds import OF_TAPS, Kind
from ..traces.trace import Trace
from .second_best import second_best
from .ties import iou, iou_slope, is_of_decision, margin

_BLOCK = 512  # boxes whose overlaps are worked out at once
_INFINITE = float("inf")


@dataclass(frozen=True)
class Way:
    """One way in which a decision could have been otherwise, where it came closest.

    Attributes:
        name: ``order`` (two neighbours in the list swap), ``cut`` (the last one in the list and the best one out of
            it), ``overlap`` (a box is suppressed or not), ``rival`` (which of two overlapping boxes is kept) or
            ``matching`` (another assignment).
        quantity: what decides: ``score``, ``IoU`` or ``cost``.
        gap: smallest gap above 0, in units of the quantity; infinite if there is none.
        ulps: by how many units in the last place (float32) each number that decided would have to be off to close the
            gap: the scores of the two, the costs of all pairs that change; of an overlap at least so many, of every
            coordinate.
        exact: how often the gap is 0.
        where: the indices, for a person.
    """

    name: str
    quantity: str
    gap: float
    ulps: float
    exact: int
    where: str


@dataclass(frozen=True)
class Decision:
    """One recorded decision.

    Attributes:
        phase: of the run.
        name: of the tap.
        call: of the tap.
        ways: in which it could have been otherwise; none if nothing else was possible.
        fault: how it breaks its own rule on the numbers it rests on; empty if it does not.
    """

    phase: str
    name: str
    call: int
    ways: tuple[Way, ...]
    fault: str = ""

    @property
    def place(self) -> str:
        return f"{self.phase} {self.name}#{self.call}"


def audit(trace: Trace) -> tuple[Decision, ...]:
    """Examine every decision of ``trace`` whose basis was recorded, in recording order.

    Raises:
        TraceError: if a tensor is not what was recorded.
    """
    trace.verify(OF_TAPS)
    places = dict.fromkeys(record.key[:4] for record in trace.records if record.kind == Kind.TAP and not record.is_float)
    found = []
    for phase, kind, name, call in places:
        if is_of_decision(trace.slots(phase, Kind.BASIS, name, call)):
            decision, basis = trace.values_of(phase, kind, name, call), trace.values_of(phase, Kind.BASIS, name, call)
            found.append(_examined(phase, name, call, decision, basis))
    return tuple(found)


def _examined(
    phase: str, name: str, call: int, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]
) -> Decision:
    own = margin(decision, basis, dict.fromkeys(basis, 0.0))
    if not own.is_tie:
        return Decision(phase, name, call, (), own.witness or f"{own.quantity} margin {own.value:.2g}")
    return Decision(phase, name, call, tuple(ways_of(decision, basis)))


def ways_of(decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> list[Way]:
    """Return the ways in which a decision could have been otherwise; it must follow its rule on ``basis``."""
    basis = {slot: tensor.detach().cpu().double() for slot, tensor in basis.items()}
    if "cost" in basis:
        return matching_ways(decision["rows"], decision["cols"], basis["cost"])
    (chosen,) = decision.values()
    return nms_ways(chosen, basis) if "boxes" in basis else ranking_ways(chosen, basis["scores"])


def ranking_ways(chosen: Tensor, scores: Tensor) -> list[Way]:
    """Examine the k best ``chosen`` of ``scores`` [n] float64, best first."""
    rest = torch.ones(len(scores), dtype=torch.bool)
    rest[chosen] = False
    left = rest.nonzero()[:, 0]
    return [*_order(chosen, scores), *_cut(chosen, left[scores[left].argsort(descending=True)], scores)]


def _order(chosen: Tensor, scores: Tensor) -> list[Way]:
    if len(chosen) < 2:
        return []
    return [_closest_scores("order", chosen[:-1], chosen[1:], scores, "{} before {}")]


def _cut(chosen: Tensor, left: Tensor, scores: Tensor) -> list[Way]:
    """Compare the last of ``chosen`` with those ``left`` out, best first."""
    if not len(chosen) or not len(left):
        return []
    equal = int((scores[left] == scores[chosen[-1]]).sum())
    best = left[: max(equal, 1)]
    return [_closest_scores("cut", chosen[-1].expand(len(best)), best, scores, "{} in, {} out")]


def _closest_scores(name: str, upper: Tensor, lower: Tensor, scores: Tensor, where: str) -> Way:
    """Return the closest of pairs of indices ``upper`` and ``lower`` [p] by score; p is at least 1."""
    one, two = scores[upper], scores[lower]
    gaps = torch.where(one == two, 0.0, one - two)  # equal infinities, too
    return _closest(name, "score", gaps, gaps / (_ulp(one) + _ulp(two)), upper, lower, where)


def _closest(name: str, quantity: str, gaps: Tensor, ulps: Tensor, one: Tensor, two: Tensor, where: str) -> Way:
    exact = gaps == 0
    open_gaps = ~exact & gaps.isfinite()
    place = int(torch.where(open_gaps, ulps, _INFINITE).argmin() if open_gaps.any() else exact.int().argmax())
    text = where.format(int(one[place]), int(two[place]))
    if not open_gaps.any():
        return Way(name, quantity, _INFINITE, _INFINITE, int(exact.sum()), text)
    return Way(name, quantity, gaps[place].item(), ulps[place].item(), int(exact.sum()), text)


def _ulp(values: Tensor) -> Tensor:
    """Return the distance from each value to the next float32, as float64."""
    return torch.as_tensor(np.spacing(values.abs().float().numpy())).double()


def matching_ways(rows: Tensor, cols: Tensor, cost: Tensor) -> list[Way]:
    """Examine a matching of least ``cost`` [n, m] float64; columns of equal costs count as one."""
    if bool(cost.isneginf().any()):
        return []
    rival = second_best(cost.numpy(), rows.numpy(), cols.numpy())
    if rival is None:
        return []
    changed = [*rival.left, *rival.taken]
    text = "1 pair changes" if len(rival.taken) == 1 else f"{len(rival.taken)} pairs change"
    if len(rival.left) == len(rival.taken) == 1:
        (old, _), (new, _) = *rival.left, *rival.taken
        text = f"row {old} moves" if old == new else f"row {new} for {old}"
    if not rival.excess:
        return [Way("matching", "cost", _INFINITE, _INFINITE, 1, text)]
    ulps = rival.excess / _ulp(torch.stack([cost[pair] for pair in changed])).sum().item()
    return [Way("matching", "cost", rival.excess, ulps, 0, text)]


def nms_ways(keep: Tensor, basis: Mapping[str, Tensor]) -> list[Way]:
    """Examine the boxes kept by a greedy NMS, best first; ``basis`` as in :class:`legacy_adapters.taps.Tap`."""
    scores = basis["scores"]
    scan = _Scan(keep, basis)
    for block in scan.blocks():
        scan.add(block)
    free = torch.tensor(scan.free, dtype=torch.int64)
    return [*_order(keep, scores), *_cut(keep, free, scores), *scan.overlap(), *scan.rival()]


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
        self._closest = _INFINITE

    def blocks(self) -> Iterator[Tensor]:
        rest = torch.ones(len(self._scores), dtype=torch.bool)
        rest[self._keep] = False
        left = rest.nonzero()[:, 0]
        left = left[self._scores[left].argsort(descending=True, stable=True)]
        for block in left.split(_BLOCK) if len(left) and len(self._keep) else ():
            if self._is_cut and self.free and self._least_ulps(block[0]) > self._closest:
                return
            yield block

    def _least_ulps(self, index: Tensor) -> float:
        """Return how many ULPs at least lie between the worst kept box and one from ``index`` on."""
        lowest, best = self._scores[self._keep[-1]], self._scores[self._keep[0]]
        return ((lowest - self._scores[index]) / (2 * _ulp(best))).item()

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
            above = torch.where(better, (overlaps - self._threshold) / slopes, -_INFINITE)[seen]
            by = above.argmax(1)
            gaps = (overlaps[seen].gather(1, by[:, None])[:, 0] - self._threshold).abs()
            self._pairs["overlap"].append((gaps, above.gather(1, by[:, None])[:, 0].abs(), block[seen], self._keep[by]))
        if covered.any():
            # it would be kept if it outranked every box that covers it: the best of them is the first in the list
            by = self._keep[covers[covered].int().argmax(1)]
            one, two = self._scores[by], scores[covered]
            gaps = torch.where(one == two, 0.0, one - two)
            ulps = gaps / (_ulp(one) + _ulp(two))
            self._pairs["rival"].append((gaps, ulps, by, block[covered]))
            self._closest = min(self._closest, torch.where(gaps == 0, _INFINITE, ulps).min().item())

    def _compare(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """Return the IoU with every kept box and what one ULP of the coordinates may change of it."""
        boxes, kept = self._boxes[block], self._boxes[self._keep]
        return iou(boxes, kept), self._unit * iou_slope(boxes, kept, self._unit)

    def _kept_pairs(self) -> list[tuple[Tensor, ...]]:
        if len(self._keep) < 2:
            return []
        overlaps, slopes = self._compare(self._keep)
        one, two = torch.ones_like(overlaps).triu(1).nonzero().unbind(1)
        gaps = (self._threshold - overlaps[one, two]).abs()
        return [(gaps, gaps / slopes[one, two], self._keep[two], self._keep[one])]

    def overlap(self) -> list[Way]:
        return self._way("overlap", "IoU", "{} behind {}")

    def rival(self) -> list[Way]:
        return self._way("rival", "score", "{} before {}")

    def _way(self, name: str, quantity: str, where: str) -> list[Way]:
        if not self._pairs[name]:
            return []
        columns = (torch.cat(parts) for parts in zip(*self._pairs[name]))
        return [_closest(name, quantity, *columns, where)]


def by_closeness(decisions: tuple[Decision, ...]) -> list[tuple[Decision, Way]]:
    """Return every way that has a gap above 0, the closest first."""
    ways = [(decision, way) for decision in decisions for way in decision.ways if math.isfinite(way.ulps)]
    return sorted(ways, key=lambda found: found[1].ulps)
