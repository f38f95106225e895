"""Try every explanation of the difference of one record, and state the one that holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from legacy_adapters.correspondence import Padding

from ..comparing.compare import Comparison
from ..traces.kinds import Kind
from ..traces.trace import Trace, TraceError
from . import attention, changes, forms, functional, linear, norms, order, places, precision, records, sums
from .kinds import Diagnosis, DiagnosisKind
from .scene import Scene

#: Explanations of one tensor by its twin, by other records, and by its layer computed again.
_OF_TENSORS = (forms, records, precision, order, changes, sums)
_OF_LAYERS = (norms, linear, attention, functional)
#: What explains the same numbers in other words: of such two the first is stated.
_NEAR_RANK = 0


def diagnosed(
    legacy: Trace, new: Trace, comparisons: Sequence[Comparison], comparison: Comparison,
    classes: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}), paddings: Sequence[Padding] = (),
) -> tuple[Diagnosis, ...]:
    """Return what the difference of one pair is, and where it is; empty if nothing could be shown.

    What it is comes first, at most one statement; then where it is.

    Args:
        legacy: trace of the legacy side, under its own names.
        new: of the new side.
        comparisons: of all pairs, in legacy recording order.
        comparison: of the pair that differs.
        classes: of both sides' modules by path.
        paddings: places of the batch that hold no image.
    """
    scene = Scene(legacy, new, comparisons, comparison, classes, paddings)
    if not scene.is_small_enough:
        return ()
    try:
        return (*_stated(_explanations(scene)), *places.diagnoses(scene))
    except TraceError:
        return ()  # a damaged tensor is told where it is judged


def _explanations(scene: Scene) -> list[Diagnosis]:
    scalar = list(places.values(scene))
    if scalar:
        return scalar
    found = [one for module in _OF_TENSORS for one in module.diagnoses(scene)]
    if scene.record.kind == Kind.MODULE_OUT and scene.record.is_float:
        found += [one for module in _OF_LAYERS for one in module.diagnoses(scene)]
    return found or list(order.moved(scene))


def _stated(found: Sequence[Diagnosis]) -> tuple[Diagnosis, ...]:
    """Return the explanation that assumes least; none if another of another kind assumes as little."""
    if not found:
        return ()
    best = min(found, key=lambda one: (one.rank, one.residual))
    rivals = [one for one in found if one.rank == best.rank and one.kind != best.kind]
    return () if rivals else (best,)


__all__ = ["Diagnosis", "DiagnosisKind", "diagnosed"]
