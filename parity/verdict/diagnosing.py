"""Choose what is to be diagnosed: the record of the first divergence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from converters.rules.mapping import Mapping as NameMapping

from ..comparing.compare import Comparison
from ..comparing.converted import in_new_form, new_names, own_names
from ..comparing.evidence import Evidence
from ..comparing.pairing import Pair
from ..diagnosis.diagnose import diagnosed
from ..diagnosis.heat import Heat, heat_of
from ..diagnosis.kinds import Diagnosis, DiagnosisKind
from ..diagnosis.scene import Scene, Target
from ..traces.kinds import Kind
from ..traces.trace import Recording, Trace, TraceError
from .blame import Divergence


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
    return explanation_of_pair(divergence.comparison, comparisons, legacy, new, mapping, evidence)


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
    if not isinstance(legacy, Trace):
        return Explanation() if evidence is None else _of_sketches(comparison, comparisons, evidence)
    classes = legacy.coverage.get("classes", {}), new.coverage.get("classes", {})
    scene = Scene(in_new_form(legacy, mapping), new, comparisons, comparison, classes, mapping.paddings)
    try:
        heat = heat_of(scene)
        return Explanation(diagnosed(scene), (heat,) if heat is not None else ())
    except TraceError:
        return Explanation()  # a damaged tensor is told where it is judged


def _of_sketches(comparison: Comparison, comparisons: Sequence[Comparison], evidence: Evidence) -> Explanation:
    """Return what can be said where of the legacy side there are sketches, by the new side's run in float64."""
    twin, reference = evidence.new_reference.by_key, evidence.reference_sketch(comparison.pair)
    if reference is None or comparison.pair.new.key not in twin:
        return Explanation()

    def in_float64(one: Comparison) -> Comparison:
        record = twin[one.pair.new.key]
        return replace(one, pair=Pair(one.pair.legacy if one is comparison else record, record, one.pair.scope))

    pairs = {one.pair.new.key: in_float64(one) for one in comparisons if one.pair.new.key in twin}
    own = pairs[comparison.pair.new.key]
    target = Target(
        reference.numpy(), lambda tensor: evidence.sketch_like(comparison.pair, tensor).numpy(),
        lambda: ((record, sketch.numpy()) for record, sketch in evidence.other_sketches(comparison.pair)),
    )
    classes = {}, evidence.new_reference.coverage.get("classes", {})
    scene = Scene(evidence.new_reference, evidence.new_reference, [*pairs.values()], own, classes, target=target)
    try:
        return Explanation(diagnosed(scene))
    except TraceError:
        return Explanation()
