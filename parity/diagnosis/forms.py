"""Differences of form: the same numbers in another type or shape, or a part of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .kinds import Diagnosis, DiagnosisKind
from .scene import Scene

#: So many rows must be found among others.
_LEAST_ROWS = 4


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield what the numbers of another type or shape are."""
    legacy, new = scene.values
    one, two = scene.comparison.pair.legacy, scene.record
    if legacy.shape == new.shape and one.dtype != two.dtype:
        yield from _type(scene)
    elif legacy.shape != new.shape and min(legacy.size, new.size) > 1:
        if legacy.size == new.size and np.array_equal(legacy.reshape(-1), new.reshape(-1)):
            text = f"the same numbers in the shape {list(two.shape)} in place of {list(one.shape)}"
            yield scene.diagnosis(DiagnosisKind.SHAPE, text, 0.0, 1)
        yield from _part(scene, legacy, new)


def _type(scene: Scene) -> Iterator[Diagnosis]:
    legacy, new = scene.tensors
    one, two = scene.comparison.pair.legacy, scene.record
    if np.array_equal(*scene.values, equal_nan=True):
        yield scene.diagnosis(DiagnosisKind.TYPE, f"the same numbers as {two.dtype} in place of {one.dtype}", 0.0, 1)
    elif np.array_equal(legacy.to(new.dtype).double().numpy(), new.double().numpy(), equal_nan=True):
        text = f"the legacy side's numbers as {two.dtype} in place of {one.dtype}"
        yield scene.diagnosis(DiagnosisKind.TYPE, text, 0.0, 1)


def _part(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    """Try that one side has the first or the last of what the other has along one axis."""
    if legacy.ndim != new.ndim:
        return
    axes = [axis for axis in range(legacy.ndim) if legacy.shape[axis] != new.shape[axis]]
    if len(axes) != 1:
        return
    axis = axes[0]
    few, many = sorted((legacy, new), key=lambda values: values.shape[axis])
    less, total = few.shape[axis], many.shape[axis]
    if not few.size or len(np.unique(few)) < 2:
        return
    parts = [
        where for where, start in (("first", 0), ("last", total - less))
        if np.array_equal(np.take(many, range(start, start + less), axis), few)
    ]  # fmt: skip
    whole, part = ("legacy", "new") if few is new else ("new", "legacy")
    if parts:
        where = f"the {' or the '.join(parts)} {less} of the {whole} side's {total} along axis {axis}"
    elif _is_selection(*(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1) for values in (few, many))):
        where = f"{less} of the {whole} side's {total} along axis {axis}, in the same order"
    else:
        return
    yield scene.diagnosis(DiagnosisKind.SHAPE, f"the {part} side has {where}", 0.0, 2)


def _is_selection(few: np.ndarray, many: np.ndarray) -> bool:
    """Tell whether rows are some of others, in their order; of rows that are alike nothing is told."""
    if len(few) < _LEAST_ROWS or len(np.unique(many, axis=0)) < len(many):
        return False
    place = -1
    for row in few:
        later = np.flatnonzero((many[place + 1 :] == row).all(1))
        if not len(later):
            return False
        place += 1 + int(later[0])
    return True
