"""Dropout: numbers that are zero at random places, and the rest larger for that."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .changes import factor_of, rounded
from .kinds import Diagnosis, DiagnosisKind
from .measuring import FLOOR, off, said
from .scene import Scene

#: Fewer numbers show no rate, and fewer zeros no order in their places.
_LEAST, _LEAST_OF_EACH = 64, 8
#: How far from chance a count may be, in standard deviations.
_MOST_SIGMAS = 4.5
#: By so many more a count may be off where few are expected.
_FEW = 3
_PARTS = 8
_LAGS = (1, 2, 3, 4)
_RANK = 10


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield that the new side's numbers look as dropout leaves them.

    What makes zeros by a rule, as twice the ReLU does, leaves them where numbers are negative, small, or of one row. So
    the zeros must come as often among numbers of every sign and size, at every index, and beside each other.
    """
    legacy, new = scene.values
    if legacy.shape != new.shape or not scene.record.is_float:
        return
    alive, lost = (new != 0) & (legacy != 0), (new == 0) & (legacy != 0)
    count, gone = int(alive.sum() + lost.sum()), int(lost.sum())
    if count < _LEAST or min(gone, count - gone) < _LEAST_OF_EACH or ((new != 0) & (legacy == 0)).any():
        return
    scale = rounded(factor_of(legacy[alive], new[alive]))
    if scale <= 1 + FLOOR or (residual := off(scale * legacy[alive], new[alive])) > FLOOR:
        return
    rate = 1 - 1 / scale
    if not _is_chance(gone, count, rate) or not _are_random(legacy, lost, alive | lost, gone / count):
        return
    text = f"{gone / count:.1%} of the numbers are zero, at random places, the others {said(scale)} times as large"
    yield scene.diagnosis(
        DiagnosisKind.DROPOUT, f"{text}, as dropout with p={said(rounded(rate))} leaves them", residual, _RANK
    )


def _is_chance(hits: float, count: int, share: float) -> bool:
    """Tell whether so many of ``count`` may be hit by chance."""
    spread = math.sqrt(count * share * (1 - share))
    return abs(hits - count * share) <= _MOST_SIGMAS * spread + 0.5


def _are_random(legacy: np.ndarray, lost: np.ndarray, possible: np.ndarray, share: float) -> bool:
    """Tell whether nothing that was tried tells where the zeros are."""
    values, gone = legacy[possible], lost[possible]
    if not all(_is_even(order, gone, share) for order in (values, np.abs(values))):
        return False
    for axis in range(legacy.ndim):
        rest = tuple(other for other in range(legacy.ndim) if other != axis)
        hits, counts = lost.sum(axis=rest), possible.sum(axis=rest)
        spreads = np.sqrt(counts * share * (1 - share))
        if (np.abs(hits - counts * share) > _MOST_SIGMAS * spreads + _FEW).any():
            return False
        if not _are_independent(lost, possible, axis, share):
            return False
    return True


def _is_even(keys: np.ndarray, gone: np.ndarray, share: float) -> bool:
    """Tell whether zeros come as often among numbers of every size; by parts, and by their mean place in the order."""
    ordered = gone[np.argsort(keys, kind="stable")]
    if not all(_is_chance(int(part.sum()), len(part), share) for part in np.array_split(ordered, _PARTS)):
        return False
    places, count, hits = np.flatnonzero(ordered), len(ordered), int(ordered.sum())
    spread = math.sqrt((count + 1) * (count - hits) / 12 / hits)
    return abs(float(places.mean()) - (count - 1) / 2) <= _MOST_SIGMAS * spread


def _are_independent(lost: np.ndarray, possible: np.ndarray, axis: int, share: float) -> bool:
    """Tell whether neighbours along an axis are zero together no more and no less often than by chance."""
    alike = share * share + (1 - share) ** 2
    for lag in _LAGS:
        if lag >= lost.shape[axis]:
            break
        one, two = (np.take(lost, range(start, lost.shape[axis] - lag + start), axis) for start in (0, lag))
        both = np.take(possible, range(0, lost.shape[axis] - lag), axis)
        both = both & np.take(possible, range(lag, lost.shape[axis]), axis)
        if not _is_chance(int(((one == two) & both).sum()), int(both.sum()), alike):
            return False
    return True
