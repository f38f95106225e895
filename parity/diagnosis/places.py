"""Where a record differs: in some elements, rows or images, from an index on, in padding only."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..comparing.padding import Images
from ..traces.kinds import Kind
from .kinds import Diagnosis, DiagnosisKind
from .measuring import FLOOR
from .scene import Scene

_FEW = 3
_OF_TRAINING = (Kind.SETTING, Kind.CLIP, Kind.UPDATE)
#: A part of an axis is told if it is at most this share of it.
_PART = 0.75
_RANK = 90


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield what the elements that differ have in common."""
    legacy, new = scene.values
    if legacy.shape != new.shape or legacy.size < 2 or _is_name(scene):
        return
    text = not_finite_words(legacy, new)
    if text:
        yield scene.diagnosis(DiagnosisKind.NOT_FINITE, text, 0.0, _RANK)
        return
    for differing, more in _masks(scene, legacy, new):
        if not differing.any() or differing.all():
            continue
        padding, where = _padding(scene, differing), _where(differing)
        if padding:
            yield scene.diagnosis(DiagnosisKind.PLACE, padding + more, 0.0, _RANK)
        if where:
            text = f"only {where} ({int(differing.sum())} of {differing.size} elements){more}"
            yield scene.diagnosis(DiagnosisKind.PLACE, text, 0.0, _RANK + 1)
        if padding or where:
            return


def _masks(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Yield where the numbers differ, and where by more than rounding, each with what is to be said besides."""
    yield legacy != new, ""
    if scene.record.is_float:
        gap = np.abs(legacy - new)
        yield gap > FLOOR * float(np.abs(legacy).max()), "; elsewhere by no more than rounding"


def not_finite_words(legacy: np.ndarray, new: np.ndarray) -> str:
    """Say what one side alone has that is not finite, and where; empty if it has nothing."""
    strange = _not_finite(legacy, new)
    if not strange.any():
        return ""
    what, where = " and ".join(_words(legacy, new, strange)), _where(strange)
    share = f"{int(strange.sum())} of {strange.size} elements" if not strange.all() else "every element"
    return f"{what} on one side only: {share}{f', {where}' if where else ''}"


def _not_finite(legacy: np.ndarray, new: np.ndarray) -> np.ndarray:
    return (np.isnan(legacy) != np.isnan(new)) | (np.isinf(legacy) != np.isinf(new))


def _words(legacy: np.ndarray, new: np.ndarray, strange: np.ndarray) -> list[str]:
    tests = (("NaN", np.isnan), ("Inf", np.isinf))
    return [word for word, test in tests if (test(legacy) ^ test(new))[strange].any()]


def _where(mask: np.ndarray) -> str:
    """Return the part of a tensor that a mask covers, in words; empty if it is no simple part."""
    count = int(mask.sum())
    if count <= _FEW:
        return "at " + ", ".join(str([int(i) for i in place]) for place in np.argwhere(mask))
    parts, size = [], 1
    for axis in range(mask.ndim):
        length = mask.shape[axis]
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        size *= len(hit)
        if len(hit) <= max(1, _PART * length) and length > 1:
            parts.append(f"{_indices(hit, length)} of axis {axis}")
    # the parts of the axes say where only if most of what they span differs
    return " and ".join(parts) if parts and count >= 0.1 * size else ""


def _indices(hit: np.ndarray, length: int) -> str:
    first, last = int(hit[0]), int(hit[-1])
    if len(hit) == 1:
        return f"index {first}"
    if last - first + 1 == len(hit):
        if last == length - 1:
            return f"index {first} and later"
        return f"indices {first} to {last}"
    if len(hit) <= 6:
        return f"indices {', '.join(map(str, hit))}"
    return f"{len(hit)} indices between {first} and {last}"


def _padding(scene: Scene, differing: np.ndarray) -> str:
    """Say that all differing elements are padding, where the family's masks tell that."""
    places = Images(scene.legacy, scene.paddings).places(scene.comparison.pair.legacy) if scene.paddings else None
    if places is None:
        return ""
    images = places.numpy().reshape(*places.shape, *([1] * (differing.ndim - places.dim())))
    if (differing & images).any():
        return ""
    return "only at padded positions, where there is no image"


def is_small_setting(scene: Scene) -> bool:
    """Tell whether a record is one number that code passes on, or the few or the name of a setting to train with."""
    count, kind = math.prod(scene.record.shape), scene.record.kind
    if kind in _OF_TRAINING:
        return count <= _FEW or _is_name(scene)
    return count == 1 and kind in (Kind.MODULE_IN, Kind.BASIS, Kind.METHOD_IN)


def _is_name(scene: Scene) -> bool:
    """Tell whether a record is a setting's name, as of an optimizer's class, by its bytes."""
    return scene.record.kind in _OF_TRAINING and scene.record.dtype == scene.comparison.pair.legacy.dtype == "U8"


def values(scene: Scene) -> Iterator[Diagnosis]:
    """Yield what a single number became, or the few or the name of a setting."""
    legacy, new = scene.values
    if not is_small_setting(scene):
        return
    if _is_name(scene):
        one, two = (bytes(tensor.tolist()).decode(errors="replace") for tensor in scene.tensors)
        yield scene.diagnosis(DiagnosisKind.VALUE, f"`{one}` became `{two}`", 0.0, 1)
        return
    if legacy.size != new.size:
        return
    pairs = [*zip(legacy.reshape(-1).tolist(), new.reshape(-1).tolist())]
    became = [(index, one, two) for index, (one, two) in enumerate(pairs) if one != two]
    if became:
        text = ", ".join(
            f"{one:.9g} became {two:.9g}{f' at index {index}' if len(pairs) > 1 else ''}" for index, one, two in became
        )
        yield scene.diagnosis(DiagnosisKind.VALUE, text, 0.0, 1)
