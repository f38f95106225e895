"""Choose what is to be diagnosed: the record of the first divergence."""

from __future__ import annotations

from collections.abc import Sequence

from converters.rules.mapping import Mapping as NameMapping

from ..comparing.compare import Comparison
from ..comparing.converted import in_new_form
from ..diagnosis.diagnose import diagnosed
from ..diagnosis.kinds import Diagnosis, DiagnosisKind
from ..traces.trace import Recording, Trace
from .blame import Divergence


def diagnoses_of(
    divergence: Divergence | None, comparisons: Sequence[Comparison], legacy: Recording, new: Trace, mapping: NameMapping
) -> tuple[Diagnosis, ...]:
    """Return what can be said of the difference at the first divergence; nothing where no two tensors are at hand.

    Args:
        divergence: where the sides part; None if they do not.
        comparisons: of all pairs.
        legacy: the legacy side, as recorded.
        new: the new side.
        mapping: gives the legacy side the new side's form.
    """
    if divergence is None:
        return ()
    if divergence.is_cut:
        text = "a detach, or code without gradients: the tensor needs a gradient on the legacy side only"
        return (Diagnosis(DiagnosisKind.DETACH, text, 0.0, 1.0),)
    comparison = divergence.comparison
    if comparison is None or comparison.accepted or not isinstance(legacy, Trace):
        return ()
    classes = legacy.coverage.get("classes", {}), new.coverage.get("classes", {})
    return diagnosed(in_new_form(legacy, mapping), new, comparisons, comparison, classes, mapping.paddings)
