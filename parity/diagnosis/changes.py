"""Differences of the numbers themselves: sign, factor, offset, clamp, whole numbers, constants, functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from .functions import FUNCTIONS
from .kinds import Diagnosis, DiagnosisKind
from .measuring import FLOOR, explains, is_telling, off, off_after, said, sample
from .scene import Scene

_SIMPLE, _ONE_NUMBER, _SEVERAL = 10, 20, 40
#: A factor for each index of an axis is stated if there are this many elements for each.
_ELEMENTS_FOR_ONE = 4
_MOST_SHOWN = 4
#: One number in place of others is stated last, and if it stands for several.
_REPLACED, _LEAST_REPLACED = 70, 16
_ULP = 2.0**-22


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield every simple change of the legacy side's numbers that gives the new side's."""
    legacy, new = scene.values
    if legacy.shape != new.shape or not legacy.size:
        return
    if legacy.size == 1:
        yield from _over_calls(scene)
        return
    if scene.record.dtype == "BOOL":
        if np.array_equal(legacy, 1 - new) and is_telling(legacy, 2):
            text = "True and False exchanged"
            if 2 * int(legacy.sum()) == legacy.size and _is_reordered(legacy, new):
                text += ", or in another order: of these values both are the same"
            yield scene.diagnosis(DiagnosisKind.INVERTED, text, 0.0, _SIMPLE)
    yield from _constant(scene, legacy, new)
    yield from _constant_where_different(scene, legacy, new)
    if scene.record.dtype == "BOOL":
        return
    if new.min() == new.max():
        return
    yield from _sign(scene, legacy, new)
    yield from _factor(scene, legacy, new)
    yield from _offset(scene, legacy, new)
    if scene.record.is_float:
        yield from _factors(scene, legacy, new)
        yield from _offsets(scene, legacy, new)
        yield from _whole(scene, legacy, new)
        yield from _functions(scene, legacy, new)
    else:
        yield from _relabelled(scene, legacy, new)


def _constant(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    for values, other, whose in ((new, legacy, "new"), (legacy, new, "legacy")):
        if values.size > 1 and (values == values.flat[0]).all() and not (other == other.flat[0]).all():
            text = f"every number of the {whose} side is {_value(scene, values.flat[0])}"
            yield scene.diagnosis(DiagnosisKind.CONSTANT, text, 0.0, 1)


def _value(scene: Scene, value: float) -> str:
    return said(float(value)) if scene.record.dtype != "BOOL" else str(bool(value))


def _constant_where_different(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    """Try that one side has the same number wherever the sides differ, as where something is masked, or left at zero."""
    differing = legacy != new
    count = int(differing.sum())
    if count < _LEAST_REPLACED or count == legacy.size:
        return
    for values, whose in ((new, "new"), (legacy, "legacy")):
        few = values[differing]
        if (few == few[0]).all() and not (values == few[0]).all():
            number = _value(scene, few[0])
            text = f"wherever the sides differ the {whose} side has {number} ({count} of {legacy.size} elements)"
            yield scene.diagnosis(DiagnosisKind.REPLACED, text, 0.0, _REPLACED)
            return


def _sign(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    residual = off(-legacy, new)
    if explains(residual, scene.gap) and is_telling(np.abs(new), 3):
        text = "the legacy side's numbers with the other sign"
        if _are_same_numbers(legacy, new):
            text += ", or in another order: of these numbers both are the same"
        yield scene.diagnosis(DiagnosisKind.SIGN, text, residual, _SIMPLE)


def _are_same_numbers(legacy: np.ndarray, new: np.ndarray) -> bool:
    """Tell whether the same numbers stand on both sides, in whatever order, but for rounding."""
    return off(np.sort(legacy, axis=None), np.sort(new, axis=None)) <= FLOOR


def _is_reordered(legacy: np.ndarray, new: np.ndarray) -> bool:
    """Tell whether values turned round, rolled or transposed are the other side's; of a few any order may be."""
    if legacy.size < 16:
        return True
    turned = [np.flip(legacy, axis) for axis in range(legacy.ndim)] + [np.flip(legacy)]
    rolled = [np.roll(legacy, by, axis) for axis, length in enumerate(legacy.shape) for by in range(1, min(length, 64))]
    return any(np.array_equal(one, new) for one in (*turned, *rolled, legacy.T))


def affine_words(legacy: np.ndarray, new: np.ndarray, gap: float) -> str:
    """Say which factor and offset together make one array of the other, as of an even grid; empty if none do."""
    if legacy.shape != new.shape or legacy.size < 2:
        return ""
    centred = legacy - legacy.mean()
    square = float(np.vdot(centred, centred))
    if not square:
        return ""
    factor = float(np.vdot(centred, new)) / square
    offset = float(new.mean() - factor * legacy.mean())
    if not factor or not explains(off(factor * legacy + offset, new), gap):
        return ""
    offset = 0.0 if abs(offset) <= FLOOR * float(np.abs(new).max()) else rounded(offset)
    factor = rounded(factor)
    words = [f"times {said(factor)}"] if factor != 1 else []
    words += [f"{'minus' if offset < 0 else 'plus'} {said(abs(offset))}"] if offset else []
    return " ".join(words)


def factor_of(legacy: np.ndarray, new: np.ndarray) -> float:
    """Return the factor by which ``legacy`` comes nearest to ``new``; NaN if there is none."""
    square = float(np.vdot(legacy, legacy))
    return float(np.vdot(legacy, new)) / square if square else math.nan


def _are_of_many_sizes(values: np.ndarray, least: int) -> bool:
    """Tell whether there are enough sizes to tell a factor from an offset."""
    few = sample(values)
    sizes = np.unique(np.abs(few[few != 0]))
    return len(sizes) >= least and float(sizes[-1]) > 1.01 * float(sizes[0])


def _factor(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    factor = factor_of(legacy, new)
    if not math.isfinite(factor) or abs(factor - 1) < FLOOR or abs(factor) < 1e-12 or abs(factor + 1) < FLOOR:
        return
    factor = rounded(factor)
    residual = off(factor * legacy, new)
    if explains(residual, scene.gap) and _are_of_many_sizes(legacy, 4) and not _is_offset(scene, legacy, new):
        kind = DiagnosisKind.GRADIENT if scene.is_gradient else DiagnosisKind.FACTOR
        yield scene.diagnosis(kind, f"the legacy side's numbers times {said(factor)}", residual, _ONE_NUMBER)


def _over_calls(scene: Scene) -> Iterator[Diagnosis]:
    """Try one factor for the single numbers of several calls that were given the same."""
    legacy, new = scene.over_calls
    if len(legacy) < 3 or not np.isfinite(legacy).all() or not np.isfinite(new).all():
        return
    factor = rounded(factor_of(legacy, new))
    residual = off(factor * legacy, new)
    if abs(factor - 1) > FLOOR and explains(residual, off(legacy, new)) and _are_of_many_sizes(legacy, 3):
        kind = DiagnosisKind.GRADIENT if scene.is_gradient else DiagnosisKind.FACTOR
        text = f"the legacy side's number times {said(factor)} in {len(legacy)} calls"
        yield scene.diagnosis(kind, text, residual, _ONE_NUMBER)


def _is_offset(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> bool:
    return explains(off(legacy + float(np.median(new - legacy)), new), scene.gap)


def rounded(value: float) -> float:
    """Return the round number that a fitted one stands for, if it is one but for rounding."""
    for digits in range(1, 6):
        near = float(f"{value:.{digits}g}")
        if abs(near - value) <= 4 * _ULP * abs(value):
            return near
    for part in (3, 6, 7, 9, 12):
        near = round(value * part) / part
        if near and abs(near - value) <= 4 * _ULP * abs(value):
            return near
    return value


def _offset(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    offset = float(np.median(new - legacy))
    if offset == 0.0:
        return
    offset = rounded(offset)
    residual = off(legacy + offset, new)
    factor = factor_of(legacy, new)
    if math.isfinite(factor) and explains(off(factor * legacy, new), scene.gap):
        return  # of numbers that are nearly the same, both are true
    if explains(residual, scene.gap) and is_telling(legacy, 4 if scene.record.is_float else 2):
        # an offset that is small beside the numbers is known only as far as their rounding
        if abs(offset) > 64 * _ULP * float(np.abs(new).max()) or not scene.record.is_float:
            sign = "plus" if offset > 0 else "minus"
            text = f"the legacy side's numbers {sign} {said(abs(offset))}"
            yield scene.diagnosis(DiagnosisKind.OFFSET, text, residual, _ONE_NUMBER)


def _each(legacy: np.ndarray, axis: int) -> tuple[np.ndarray, int]:
    rows = np.moveaxis(legacy, axis, 0).reshape(legacy.shape[axis], -1)
    return rows, rows.shape[1]


def _factors(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    """Try a factor for each index of an axis."""
    for axis in range(legacy.ndim):
        (one, count), (two, _) = _each(legacy, axis), _each(new, axis)
        if len(one) < 2 or count < _ELEMENTS_FOR_ONE:
            continue
        squares = (one * one).sum(1)
        if not (squares > 0).all():
            continue
        factors = np.array([rounded(value) for value in (one * two).sum(1) / squares])
        residual = off(factors[:, None] * one, two)
        if not explains(residual, scene.gap) or len(np.unique(np.round(factors, 5))) < 2:
            continue
        if not all(_are_of_many_sizes(row, _ELEMENTS_FOR_ONE) for row in one[:256]):
            continue
        text = f"the legacy side's numbers times a factor for each index of axis {axis}: {_list(factors, 1.0)}"
        if axis == legacy.ndim - 1 and np.array_equal(factors, (1.0, -1.0)):
            text += "; the conjugates, if these are complex numbers as pairs"
        yield scene.diagnosis(DiagnosisKind.FACTOR, text, residual, _SEVERAL + min(len(one), 1000) // 100)


def _offsets(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    """Try an offset for each index of an axis."""
    for axis in range(legacy.ndim):
        (one, count), (two, _) = _each(legacy, axis), _each(new, axis)
        if len(one) < 2 or count < _ELEMENTS_FOR_ONE:
            continue
        offsets = np.median(two - one, axis=1)
        residual = off(one + offsets[:, None], two)
        if not explains(residual, scene.gap) or len(np.unique(np.round(offsets, 6))) < 2:
            continue
        if not all(_is_spread(row) for row in one[:256]):
            continue
        text = f"the legacy side's numbers plus an offset for each index of axis {axis}: {_list(offsets, 0.0)}"
        yield scene.diagnosis(DiagnosisKind.OFFSET, text, residual, _SEVERAL + min(len(one), 1000) // 100)


def _is_spread(row: np.ndarray) -> bool:
    """Tell whether numbers are different enough to tell an offset from a factor."""
    return len(np.unique(row)) >= _ELEMENTS_FOR_ONE and np.ptp(row) > 0.01 * float(np.abs(row).max())


def _list(values: np.ndarray, neutral: float) -> str:
    """List the first values; where most change nothing, as the ``neutral`` one does, those that do."""
    changing = np.flatnonzero(values != neutral)
    if len(changing) <= min(_MOST_SHOWN, len(values) // 2):
        shown = ", ".join(f"{said(float(values[index]))} at index {index}" for index in changing)
        return f"{shown}, {said(neutral)} at the others"
    other = np.flatnonzero(values != values[0])
    if len(other) and other[0] >= _MOST_SHOWN:  # the first are alike: where it changes is told
        return f"{said(float(values[0]))} before index {other[0]}, {said(float(values[other[0]]))} from there ..."
    shown = ", ".join(said(float(value)) for value in values[:_MOST_SHOWN])
    return shown if len(values) <= _MOST_SHOWN else f"{shown} ..."


_ROUNDINGS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("rounded to the nearest", np.round), ("rounded down to the next", np.floor), ("cut to the next", np.trunc),
    ("rounded up to the next", np.ceil),
)  # fmt: skip


def _whole(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    """Try rounding to whole numbers, or to a power of two below one."""
    for part in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        few = sample(new) * part
        if not np.array_equal(few, np.round(few)) or not np.array_equal(new * part, np.round(new * part)):
            continue
        if not is_telling(new) or np.mean(legacy * part == np.round(legacy * part)) > 0.5:
            return
        for how, function in _ROUNDINGS:
            if np.array_equal(function(legacy * part) / part, new):
                grid = "whole number" if part == 1 else f"multiple of 1/{part}"
                text = f"the legacy side's numbers {how} {grid}"
                yield scene.diagnosis(DiagnosisKind.WHOLE, text, 0.0, _SIMPLE)
                return
        return


def _functions(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    """Try a function on top on one side only."""
    if not is_telling(legacy, 8) or not is_telling(new, 2):
        return
    with np.errstate(all="ignore"):
        on_new = [(name, off_after(f, legacy, new)) for name, f in FUNCTIONS.items()]
        on_legacy = [(name, off_after(f, new, legacy)) for name, f in FUNCTIONS.items()]
    texts, residuals = [], []
    for results, text in (
        (on_new, "{} of the legacy side's numbers"), (on_legacy, "the legacy side's are {} of the new side's"),
    ):
        fitting = [(name, residual) for name, residual in results if explains(residual, scene.gap, 2 * FLOOR)]
        if len(fitting) == 1:
            texts.append(text.format(fitting[0][0]))
            residuals.append(fitting[0][1])
    if texts:  # a function and its inverse are both said: either side may be the one that has one too many
        yield scene.diagnosis(DiagnosisKind.FUNCTION, ", which is: ".join(texts), max(residuals), _SIMPLE + 2)


def _relabelled(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    """Try that each value of whole numbers became one other, as of labels."""
    values = np.unique(legacy)
    if not 2 <= len(values) <= 256 or legacy.size < 3 * len(values):
        return
    image = {}
    for value in values:
        others = np.unique(new[legacy == value])
        if len(others) != 1:
            return
        image[int(value)] = int(others[0])
    other = {one: two for one, two in image.items() if one != two}
    if int(np.isin(legacy, list(other)).sum()) < 2 * len(other):
        return  # of a value that stands once, no rule is seen
    if len({two - one for one, two in image.items()}) > 1:
        shown = ", ".join(f"{one} became {two}" for one, two in list(other.items())[:_MOST_SHOWN])
        more = f" and {len(other) - _MOST_SHOWN} more" if len(other) > _MOST_SHOWN else ""
        yield scene.diagnosis(DiagnosisKind.RELABELLED, f"{shown}{more}, everywhere", 0.0, _SIMPLE + 1)
