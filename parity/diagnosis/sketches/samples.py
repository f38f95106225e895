"""Differences that cannot be undone, as numbers are lost: the samples of a sketch and all that the new side has may show them.

What is said holds for all of the new side's numbers, and of the legacy side's for the samples, of which several must
tell it. It is said that samples show it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..kinds import Diagnosis, DiagnosisKind
from ..measuring import said
from ..scene import Scene

#: So many samples must show a shift, or that one image stands for all; and on each side of a bound.
_LEAST, _LEAST_OF_BOUND = 6, 3
#: A bound is one if so many of the new side's numbers have come to it.
_LEAST_AT_BOUND = 8
_REPEATED, _SHIFT, _BOUNDS = 10, 13, 30
_CAVEAT = ", as far as samples show"


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield a shift, one image for all, or bounds that the samples of the legacy side show."""
    new, known = scene.tensors[1].double(), scene.target.samples()
    if known is None or not bool(new.isfinite().all()):
        return
    numbers, elements = known
    if tuple(new.shape) != scene.comparison.pair.legacy.shape:
        yield from _part(scene, new, torch.from_numpy(scene.target.reference[numbers.numpy()]), elements)
        return
    legacy = torch.from_numpy(scene.target.reference[numbers.numpy()])
    here = new.reshape(-1)[elements]
    places = np.stack(np.unravel_index(elements.numpy(), tuple(new.shape)))  # [dimensions, samples]
    step = scene.target.floor * max(float(new.abs().max()), float(legacy.abs().max()))
    if len(torch.unique(legacy)) < _LEAST or not bool(((legacy - here).abs() > step).any()):
        return
    yield from _repeated(scene, new, legacy, here, places, step)
    for axis in range(new.dim()):
        yield from _shifted(scene, new, legacy, here, places, axis, step)
    yield from _clamped(scene, new, legacy, here, step)


def _part(scene: Scene, new: Tensor, legacy: Tensor, elements: Tensor) -> Iterator[Diagnosis]:
    """Try that the new side has the first or the last of what the legacy side has along one axis."""
    shape = scene.comparison.pair.legacy.shape
    axes = [axis for axis in range(new.dim()) if len(shape) == new.dim() and shape[axis] != new.shape[axis]]
    if len(axes) != 1 or new.shape[axes[0]] > shape[axes[0]] or not new.numel():
        return
    axis, step = axes[0], scene.target.floor * float(legacy.abs().max())
    less, total = new.shape[axis], shape[axis]
    parts = []
    for where, start in (("first", 0), ("last", total - less)):
        places = np.stack(np.unravel_index(elements.numpy(), shape))
        places[axis] -= start
        kept = torch.from_numpy((places[axis] >= 0) & (places[axis] < less))
        there = new[tuple(torch.from_numpy(row)[kept] for row in places)]
        if len(torch.unique(legacy[kept])) >= _LEAST and bool(((legacy[kept] - there).abs() <= step).all()):
            parts.append(where)
    if parts:
        text = f"the new side has the {' or the '.join(parts)} {less} of the legacy side's {total} along axis {axis}{_CAVEAT}"
        yield scene.diagnosis(DiagnosisKind.SHAPE, text, 0.0, 2)


def _repeated(
    scene: Scene, new: Tensor, legacy: Tensor, here: Tensor, places: np.ndarray, step: float
) -> Iterator[Diagnosis]:
    """Try that the new side has at every index of the first axis what the legacy side has at the first or the last."""
    if len(new) < 2 or not torch.equal(new, new[:1].expand_as(new)):
        return
    apart = ((legacy - here).abs() > step).numpy()
    for index in (0, len(new) - 1):
        of_one = places[0] == index
        several = len(torch.unique(here[torch.from_numpy(of_one)]))
        if several >= _LEAST_OF_BOUND and not apart[of_one].any() and apart[~of_one].sum() >= _LEAST_OF_BOUND:
            text = f"what the legacy side has at index {index} of axis 0, at every index{_CAVEAT}"
            yield scene.diagnosis(DiagnosisKind.REPEATED, text, 0.0, _REPEATED)


def _shifted(
    scene: Scene, new: Tensor, legacy: Tensor, here: Tensor, places: np.ndarray, axis: int, step: float
) -> Iterator[Diagnosis]:
    """Try that the numbers stand one index later or earlier, and those at the end are lost."""
    length = new.shape[axis]
    for by in (1, -1):
        moved = places.copy()
        moved[axis] += by
        kept = torch.from_numpy((moved[axis] >= 0) & (moved[axis] < length))
        if length < 3 or int(kept.sum()) < _LEAST:
            continue
        there = new[tuple(torch.from_numpy(row)[kept] for row in moved)]
        own, wanted = here[kept], legacy[kept]
        telling = (own - there).abs() > step
        if bool(((wanted - there).abs() <= step).all()) and len(torch.unique(wanted[telling])) >= _LEAST:
            text = f"the legacy side's numbers 1 {'later' if by > 0 else 'earlier'} along axis {axis}{_CAVEAT}"
            yield scene.diagnosis(DiagnosisKind.SHIFT, text, 0.0, _SHIFT)


def _clamped(scene: Scene, new: Tensor, legacy: Tensor, here: Tensor, step: float) -> Iterator[Diagnosis]:
    """Try that the new side's numbers end at bounds where the legacy side's go on."""
    low, high = float(new.min()), float(new.max())
    if low == high or not bool(((legacy.clamp(low, high) - here).abs() <= step).all()):
        return
    words, outside = [], torch.zeros(len(legacy), dtype=torch.bool)
    for bound, beyond, word in ((low, legacy < low - step, "below"), (high, legacy > high + step, "above")):
        if bool(beyond.any()):
            if int((new == bound).sum()) < _LEAST_AT_BOUND:
                return
            outside |= beyond
            words.append(f"{word} {said(bound)}")
    if len(torch.unique(legacy[outside])) >= _LEAST_OF_BOUND and int((~outside).sum()) >= _LEAST_OF_BOUND:
        text = f"the legacy side's numbers, but none {' and none '.join(words)}{_CAVEAT}"
        yield scene.diagnosis(DiagnosisKind.CLAMP, text, 0.0, _BOUNDS)
