"""Numbers that end at bounds on one side only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .kinds import Diagnosis, DiagnosisKind
from .measuring import said
from .scene import Scene

_BOUNDS = 30
#: A bound for each index is asked of the last axis if it has no more.
_MOST_COLUMNS = 8


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield the bounds to which one side's numbers are limited."""
    legacy, new = scene.values
    if legacy.shape == new.shape and legacy.size > 1 and scene.record.dtype != "BOOL" and new.min() != new.max():
        yield from _clamped(scene, legacy, new)


def _clamped(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    """Try that one side's numbers end at bounds where the other's go on."""
    for clamped, free, text in (
        (new, legacy, "the legacy side's numbers, but none {}"),
        (legacy, new, "the new side's numbers are not limited: the legacy side has none {}"),
    ):
        for axis in (None, -1):
            if axis is not None and (clamped.ndim < 2 or clamped.shape[-1] > _MOST_COLUMNS):
                continue
            bounds = _bounds(clamped, free, axis)
            if bounds:
                rank = _BOUNDS + (0 if axis is None else 5)
                yield scene.diagnosis(DiagnosisKind.CLAMP, text.format(bounds), 0.0, rank)
                return
    if legacy.ndim > 1 and legacy.shape[-1] <= _MOST_COLUMNS:
        yield from _each_clamped(scene, legacy, new)


def _each_clamped(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    """Try that at some indices of the last axis one side is limited and at others the other, as by exchanged bounds."""
    limited = []
    for index in range(legacy.shape[-1]):
        one, two = legacy[..., index], new[..., index]
        if np.array_equal(one, two):
            continue
        sides = (("new", _bounds(two, one, None)), ("legacy", _bounds(one, two, None)))
        words = [(whose, f"at index {index} the {whose} side has none {bounds}") for whose, bounds in sides if bounds]
        if len(words) != 1:
            return
        limited += words
    if {whose for whose, _ in limited} == {"new", "legacy"}:  # else it is a bound for each index, tried as such
        text = f"along the last axis {', '.join(words for _, words in limited)}, where the other side goes on"
        yield scene.diagnosis(DiagnosisKind.CLAMP, text, 0.0, _BOUNDS + 6)


def _bounds(clamped: np.ndarray, free: np.ndarray, axis: int | None) -> str:
    """Return the bounds to which ``free`` is clamped, in words; empty if it is not.

    A bound is one only if several different numbers have come to it.
    """
    rest = None if axis is None else tuple(range(clamped.ndim - 1))
    low, high = clamped.min(axis=rest, keepdims=True), clamped.max(axis=rest, keepdims=True)
    if not np.array_equal(np.clip(free, low, high), clamped):
        return ""
    if ((low == high) & (free != clamped)).any():
        return ""  # the same number everywhere, of whatever was there
    said_of = []
    for outside, bound, word in ((free < low, low, "below"), (free > high, high, "above")):
        if outside.any():
            bounds = np.unique(np.broadcast_to(bound, free.shape)[outside])
            if len(np.unique(free[outside])) <= len(bounds):
                return ""  # with a bound of its own for each number, anything is one
            hit = outside.any(axis=rest, keepdims=True)  # of an index at which nothing is outside there is no bound
            shown = sorted({said(float(value)) for value in bound[hit]}, key=float)
            said_of.append(f"{word} {' or '.join(shown)}")
    return " and none ".join(said_of)
