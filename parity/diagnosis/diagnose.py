"""Try every explanation of the difference of one record, and state the one that holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from ..traces.kinds import Kind
from . import (
    attention,
    bounds,
    changes,
    dropping,
    forms,
    functional,
    linear,
    norms,
    order,
    places,
    precision,
    records,
    sums,
)
from .kinds import Diagnosis, DiagnosisKind
from .scene import Scene
from .sketches import numbers as sketched
from .sketches import places as sketched_places
from .sketches import samples
from .sketches.restoring import Restored


class _Explaining(Protocol):
    """A module of this package that tries explanations of one sort."""

    def diagnoses(self, scene: Scene) -> Iterator[Diagnosis]:
        """Yield the explanations that hold."""


#: Explanations of one tensor by its twin, by other records, and by its layer computed again.
_OF_TENSORS = (forms, records, precision, order, changes, bounds, dropping, sums)
#: Of these the ones that ask for no other tensor of the legacy side.
_OF_ONE_TENSOR = (forms, records, precision, order, changes, bounds, dropping)
#: Ranks that assume about as much as each other.
_ALIKE = (range(10, 30), range(40, 60))
_OF_ONE_NUMBER = (DiagnosisKind.FACTOR, DiagnosisKind.SIGN, DiagnosisKind.GRADIENT)
_OF_LAYERS = (norms, linear, attention, functional)


def diagnosed(scene: Scene) -> tuple[Diagnosis, ...]:
    """Return what the difference of one pair of records is, and where it is; empty if nothing could be shown.

    What it is comes first, at most one statement; then where it is.

    Raises:
        parity.traces.trace.TraceError: if a tensor cannot be read.
    """
    if not scene.is_small_enough:
        return ()
    if scene.target is not None:
        modules = (sketched, *(_OF_LAYERS if scene.record.kind == Kind.MODULE_OUT else ()), samples)
        found = _stated([one for module in modules for one in _tried(module, scene)])
        return found or tuple(_tried(sketched_places, scene))
    return (*_stated(_explanations(scene)), *places.diagnoses(scene))


def _explanations(scene: Scene) -> list[Diagnosis]:
    scalar = list(places.values(scene))
    if scalar:
        return scalar
    if not all(np.isfinite(values).all() for values in scene.values):
        return []  # where that is, is said; of the rest nothing
    modules: tuple[_Explaining, ...] = _OF_TENSORS
    if isinstance(scene.legacy, Restored):
        modules = _OF_ONE_TENSOR
    elif scene.record.kind == Kind.MODULE_OUT and scene.record.is_float:
        modules += _OF_LAYERS
    found = [one for module in modules for one in _tried(module, scene)]
    return found or list(order.moved(scene))


def _tried(module: _Explaining, scene: Scene) -> list[Diagnosis]:
    """Return what a module finds; nothing where it takes a layer for one that it is not, and shapes do not fit."""
    try:
        return list(module.diagnoses(scene))
    except (RuntimeError, ValueError, IndexError, KeyError):
        return []


def _stated(found: Sequence[Diagnosis]) -> tuple[Diagnosis, ...]:
    """Return the explanation that assumes least; none if one of another kind assumes about as little.

    What is of a few numbers of the tensor itself goes before a term that would give the same.
    """
    if any(one.kind in _OF_ONE_NUMBER for one in found):
        found = [one for one in found if one.kind != DiagnosisKind.RESIDUAL]
    if not found:
        return ()
    best = min(found, key=lambda one: (one.rank, one.residual))
    rivals = [one for one in found if _rivals(one.rank, best.rank) and one.kind != best.kind]
    return () if rivals else (_with_equals(best, found),)


def _with_equals(best: Diagnosis, found: Sequence[Diagnosis]) -> Diagnosis:
    """Add another explanation of the same kind that assumes as little and holds as well, as of numbers that are alike."""
    equals = [one for one in found if one.kind == best.kind and one.rank == best.rank and one.text != best.text]
    if not equals:
        return best
    more = "" if len(equals) == 1 else f", or in {len(equals) - 1} more ways"
    return replace(best, text=f"{best.text}, or {equals[0].text}{more}")


def _rivals(one: int, two: int) -> bool:
    """Tell whether explanations of two ranks assume about as much."""
    return one == two or any(one in alike and two in alike for alike in _ALIKE)
