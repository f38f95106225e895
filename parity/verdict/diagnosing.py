"""Choose what is to be diagnosed: the record of the first divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converters.rules.mapping import Mapping as NameMapping

from ..comparing.compare import Comparison
from ..comparing.converted import in_new_form
from ..diagnosis.diagnose import diagnosed
from ..diagnosis.heat import Heat, heat_of
from ..diagnosis.kinds import Diagnosis, DiagnosisKind
from ..diagnosis.scene import Scene
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
    divergence: Divergence | None, comparisons: Sequence[Comparison], legacy: Recording, new: Trace, mapping: NameMapping
) -> Explanation:
    """Return what can be said of the difference at the first divergence; nothing where no two tensors are at hand.

    Args:
        divergence: where the sides part; None if they do not.
        comparisons: of all pairs.
        legacy: the legacy side, as recorded.
        new: the new side.
        mapping: gives the legacy side the new side's form.
    """
    if divergence is None:
        return Explanation()
    if divergence.is_cut:
        text = "a detach, or code without gradients: the tensor needs a gradient on the legacy side only"
        return Explanation((Diagnosis(DiagnosisKind.DETACH, text, 0.0, 1.0),))
    return explanation_of_pair(divergence.comparison, comparisons, legacy, new, mapping)


def explanation_of_pair(
    comparison: Comparison | None, comparisons: Sequence[Comparison], legacy: Recording, new: Trace, mapping: NameMapping
) -> Explanation:
    """Return what can be said of one pair; arguments as of :func:`explanation_of`."""
    if comparison is None or comparison.accepted or not isinstance(legacy, Trace):
        return Explanation()
    classes = legacy.coverage.get("classes", {}), new.coverage.get("classes", {})
    scene = Scene(in_new_form(legacy, mapping), new, comparisons, comparison, classes, mapping.paddings)
    try:
        heat = heat_of(scene)
        return Explanation(diagnosed(scene), (heat,) if heat is not None else ())
    except TraceError:
        return Explanation()  # a damaged tensor is told where it is judged
