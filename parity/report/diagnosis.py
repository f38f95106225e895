"""Tell what a difference was found to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..diagnosis.kinds import Diagnosis, DiagnosisKind
from .printing import finite

#: Statements that are read off the numbers, so that nothing remains to be told.
_EVIDENT = (DiagnosisKind.PLACE, DiagnosisKind.NOT_FINITE, DiagnosisKind.VALUE, DiagnosisKind.DETACH,
    DiagnosisKind.FROZEN, DiagnosisKind.REPLACED,
)


def diagnosis_lines(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """Return a line for what the difference is, and one for each place where it is."""
    return [f"{_label(one)}: {one.text}{_remains(one)}" for one in diagnoses]


def _label(one: Diagnosis) -> str:
    return "where" if one.kind.is_place else "diagnosis"


def _remains(one: Diagnosis) -> str:
    if one.kind in _EVIDENT:
        return ""
    if one.residual == 0.0:
        return " (explains every bit)"
    if not math.isfinite(one.gap):
        return f" (leaves {one.residual:.1g} of its size)"
    return f" (leaves {one.residual:.1g} of its size, the difference is {one.gap:.1g})"


def diagnosis_dict(one: Diagnosis) -> dict[str, Any]:
    """Return a statement for JSON."""
    record = None
    if one.record is not None:
        record = dict(zip(("phase", "kind", "name", "call", "slot"), one.record))
    return {
        "kind": str(one.kind), "text": one.text, "residual": finite(one.residual), "difference": finite(one.gap),
        "record": record,
    }  # fmt: skip
