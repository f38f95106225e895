"""Diagnose a record of which the legacy side has a sketch and a digest, as in a golden file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from legacy_adapters.recording.trace_writer import Record

from ..comparing.compare import Comparison
from ..comparing.evidence import Evidence, LegacySketch
from ..comparing.pairing import Pair
from ..diagnosis.diagnose import diagnosed
from ..diagnosis.kinds import Diagnosis
from ..diagnosis.measuring import FLOOR, MOST_ELEMENTS, off
from ..diagnosis.scene import Scene, Target
from ..diagnosis.sketches.places import not_finite
from ..diagnosis.sketches.restoring import Restored, constant, restored
from ..traces.trace import Recording, Trace, TraceError

#: Two sides round otherwise: by so many times what one of them does, and never by more than this share.
_TIMES_OWN, _MOST_ROUNDING = 8.0, 1e-3


def diagnosed_of_sketches(
    comparison: Comparison, comparisons: Sequence[Comparison], legacy: Recording, evidence: Evidence
) -> tuple[Diagnosis, ...]:
    """Return what can be said of one pair.

    Where the legacy side's tensor is kept whole, or the new side's, changed back, has its digest, the two are
    compared as of two traces. Else the new side's run in float64 is changed back until its sketch is the legacy side's;
    and its own run, if only that differs.

    Args:
        comparison: the pair.
        comparisons: of all pairs.
        legacy: the legacy side.
        evidence: has its sketches.
    """
    try:
        if math.prod(comparison.pair.new.shape) > MOST_ELEMENTS:
            return ()
        found = [
            *_of_tensor(comparison, comparisons, legacy, evidence),
            *_of_sketch(comparison, comparisons, evidence),
        ]
    except TraceError:
        return ()  # a damaged tensor is told where it is judged
    what = min((one for one in found if not one.kind.is_place), key=lambda one: one.rank, default=None)
    return (*((what,) if what is not None else ()), *(one for one in found if one.kind.is_place))


def _of_tensor(
    comparison: Comparison, comparisons: Sequence[Comparison], legacy: Recording, evidence: Evidence
) -> tuple[Diagnosis, ...]:
    pair, new = comparison.pair, evidence.new
    values = evidence.kept(pair)
    if values is None:
        values = restored(pair.legacy, new.tensor(pair.new), new)
    if values is None:
        # neither the new side's number nor a usual one, everywhere, has the legacy side's digest
        return tuple(constant(pair.new, new.tensor(pair.new))) if evidence.sketch_of_legacy(pair) is None else ()
    own = Restored(legacy.records, pair.legacy, values)
    return diagnosed(Scene(own, new, comparisons, comparison, _classes(new)))


def _of_sketch(
    comparison: Comparison, comparisons: Sequence[Comparison], evidence: Evidence
) -> Iterator[Diagnosis]:
    pair = comparison.pair
    exact, own = (evidence.sketch_of_legacy(pair, in_float64) for in_float64 in (True, False))
    if own is not None:
        yield from not_finite(evidence.new.tensor(pair.new), own.is_finite, pair.new)
    if exact is not None and pair.new.key in evidence.new_reference.by_key:
        scene = _scene(comparison, comparisons, evidence.new_reference, exact)
        if scene.gap > scene.target.floor:
            yield from diagnosed(scene)
            return
    if own is not None:  # in float64 both are the same: only its own run differs
        floor = FLOOR if exact is None else _rounding(own, exact)
        yield from diagnosed(_scene(comparison, comparisons, evidence.new, own, floor))


def _rounding(own: LegacySketch, exact: LegacySketch) -> float:
    """Return up to which share of the size a difference may be rounding, by how much the legacy side itself rounds."""
    rounding = off(own.values.numpy(), exact.values.numpy())
    return min(max(FLOOR, _TIMES_OWN * rounding), _MOST_ROUNDING)


def _scene(
    comparison: Comparison, comparisons: Sequence[Comparison], new: Trace, sketch: LegacySketch, floor: float = 1e-8
) -> Scene:
    """Return what a run of the new side recorded, which stands for the legacy side's records but for the one."""
    twin = new.by_key

    def in_run(one: Comparison) -> Comparison:
        record: Record = twin[one.pair.new.key]
        return replace(one, pair=Pair(one.pair.legacy if one is comparison else record, record, one.pair.scope))

    pairs = {one.pair.new.key: in_run(one) for one in comparisons if one.pair.new.key in twin}
    target = Target(
        sketch.values.numpy(), lambda tensor: sketch.of(tensor).numpy(),
        lambda: ((record, values.numpy()) for record, values in sketch.others()), sketch.sums, sketch.samples, floor,
    )
    return Scene(new, new, [*pairs.values()], pairs[comparison.pair.new.key], _classes(new), target=target)


def _classes(new: Trace) -> tuple[dict[str, str], dict[str, str]]:
    return {}, new.coverage.get("classes", {})
