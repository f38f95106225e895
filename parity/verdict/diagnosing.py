"""Choose what is to be diagnosed: the record of the first divergence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.rules.mapping import Mapping as NameMapping
from legacy_adapters.recording.trace_writer import Record

from ..comparing.compare import Comparison
from ..comparing.converted import in_new_form, new_names, own_names
from ..comparing.evidence import Evidence
from ..diagnosis.kinds import Diagnosis, DiagnosisKind
from ..traces.kinds import OF_OPTIMIZERS, Kind
from ..traces.trace import Recording, Trace, TraceError
from .blame import Divergence
from .sentences import quoted

if TYPE_CHECKING:
    from ..diagnosis.heat import Heat

#: What is said of a record that comes after the first difference: what no code but that one would make of it.
_OF_WHAT_FOLLOWS = (
    DiagnosisKind.OTHER_RECORD, DiagnosisKind.DROPOUT, DiagnosisKind.CONSTANT, DiagnosisKind.PLACE, DiagnosisKind.NOT_FINITE,
)  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """What the differences of some records are.

    Attributes:
        diagnoses: what a difference is, and where in the tensor.
        heats: pictures of where records differ, and by how much.
    """

    diagnoses: tuple[Diagnosis, ...] = ()
    heats: tuple[Heat, ...] = ()


def explanation_of(
    divergence: Divergence | None, comparisons: Sequence[Comparison], legacy: Recording, new: Trace,
    mapping: NameMapping, evidence: Evidence | None = None,
) -> Explanation:
    """Return what can be said of the difference at the first divergence; nothing where no two tensors are at hand.

    Args:
        divergence: where the sides part; None if they do not.
        comparisons: of all pairs.
        legacy: the legacy side, as recorded.
        new: the new side.
        mapping: gives the legacy side the new side's form.
        evidence: of a derived tolerance; with a golden file it has the legacy side's sketches.
    """
    if divergence is None:
        return Explanation()
    if divergence.is_cut:
        return Explanation(tuple(_of_cut(comparisons, legacy, new, mapping)))
    if divergence.comparison is None:
        return Explanation(tuple(_of_lone(divergence, comparisons, legacy, new, mapping, evidence)))
    return explanation_of_pair(divergence.comparison, comparisons, legacy, new, mapping, evidence)


def _of_lone(
    divergence: Divergence, comparisons: Sequence[Comparison], legacy: Recording, new: Trace, mapping: NameMapping,
    evidence: Evidence | None,
) -> Iterator[Diagnosis]:
    """Say what is known where the first difference is a record of one side alone, or a random state.

    Of a setting that is its value. Of a call that is that what the blamed module gives, or hands on, is another record,
    as where a layer is left out, or that it drops numbers, as where a dropout draws: what is said names its record.
    """
    yield from _of_lone_setting(divergence, comparisons, legacy, new)
    module = divergence.where if divergence.modules is None else divergence.modules[1]
    first = next((one for one in comparisons if not one.accepted and _is_of(one.pair.new, module)), None)
    record = first.pair.new if first is not None else None
    for one in explanation_of_pair(first, comparisons, legacy, new, mapping, evidence).diagnoses:
        if one.kind in _OF_WHAT_FOLLOWS:
            slot = f", `{record.slot}`" if record.slot else ""
            yield replace(one, text=f"{Kind(record.kind).noun} {quoted(record.name)}{slot}: {one.text}")


def _is_of(record: Record, module: str) -> bool:
    is_inside = record.kind == Kind.MODULE_IN and record.scope == module
    return is_inside or (record.kind in (Kind.MODULE_OUT, Kind.METHOD_OUT) and record.name == module)


def _of_lone_setting(
    divergence: Divergence, comparisons: Sequence[Comparison], legacy: Recording, new: Trace
) -> Iterator[Diagnosis]:
    paired = {record.key for one in comparisons for record in (one.pair.legacy, one.pair.new)}
    for side, trace, other in (("new", new, "legacy"), ("legacy", legacy, "new")):
        lone = next((one for one in trace.records if one.kind in OF_OPTIMIZERS and one.key not in paired), None)
        value = trace.number(lone) if lone is not None and f"`{lone.slot}`" in divergence.message else None
        if value is not None:
            text = f"`{lone.slot}` is {value:.9g} on the {side} side, and not set on the {other} one"
            yield Diagnosis(DiagnosisKind.VALUE, text, 0.0, float("inf"), 1, lone.key)
            return


def _of_cut(
    comparisons: Sequence[Comparison], legacy: Recording, new: Trace, mapping: NameMapping
) -> Iterator[Diagnosis]:
    """Say why a tensor needs no gradient on the new side: what should get one is frozen there, or it is cut off."""
    own = (name for record in legacy.records if record.kind == Kind.GRAD for name in own_names(record.name))
    reached = {record.name for record in new.records if record.kind == Kind.GRAD}
    lost = sorted({*new_names(own, mapping)} - reached)
    frozen = [name for name in lost if name in new.coverage.get("frozen", ())]
    state = {record.name for record in new.records if record.kind == Kind.PARAM}
    trained = {*frozen, *new.coverage["without_gradient"]}
    others = [name for name in lost if name in state and name not in trained]
    for names, what in (
        (frozen, "trained on the legacy side, and frozen on the new one (requires_grad is False)"),
        (others, "trained on the legacy side, and no parameter on the new one, but a buffer or the like"),
    ):
        if names:
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            shown = " and ".join(f"`{name}`" for name in names[:2]) if not more else ", ".join(f"`{n}`" for n in names[:2])
            text = f"{shown}{more} {'is' if len(names) == 1 else 'are'} {what}"
            yield Diagnosis(DiagnosisKind.FROZEN, text, 0.0, 1.0)
    if not frozen and not others:
        text = "a detach, code without gradients, or a parameter that is not used: "
        yield Diagnosis(DiagnosisKind.DETACH, f"{text}the tensor needs a gradient on the legacy side only", 0.0, 1.0)


def explanation_of_pair(
    comparison: Comparison | None, comparisons: Sequence[Comparison], legacy: Recording, new: Trace,
    mapping: NameMapping, evidence: Evidence | None = None,
) -> Explanation:
    """Return what can be said of one pair; arguments as of :func:`explanation_of`."""
    if comparison is None or comparison.accepted:
        return Explanation()
    # what a match has no need of: a tenth of the modules that the command line loads
    from ..diagnosis.diagnose import diagnosed
    from ..diagnosis.heat import heat_of
    from ..diagnosis.scene import Scene
    from .diagnosing_sketches import diagnosed_of_sketches

    if not isinstance(legacy, Trace):
        return Explanation() if evidence is None else Explanation(diagnosed_of_sketches(comparison, comparisons, legacy, evidence))
    classes = legacy.coverage.get("classes", {}), new.coverage.get("classes", {})
    scene = Scene(in_new_form(legacy, mapping), new, comparisons, comparison, classes, mapping.paddings)
    try:
        heat = heat_of(scene)
        return Explanation(diagnosed(scene), (heat,) if heat is not None else ())
    except TraceError:
        return Explanation()  # a damaged tensor is told where it is judged
