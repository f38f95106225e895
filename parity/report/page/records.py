"""What the scripts of the page read: every record that was compared, in as few bytes as possible."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from legacy_adapters.recording.trace_writer import Record

from ...comparing.compare import Comparison
from ...comparing.derived import Finding
from ...comparing.evidence import Norms
from ...comparing.metrics import Metrics
from ...diagnosis.heat import DECADES, STEPS
from ...traces.kinds import Kind
from ...verdict.verdict import Verdict
from ..diagnosis import diagnosis_lines
from ..modules import Module, module_of, modules, share_of_allowed
from ..stages import stage_of

IDENTICAL, ACCEPTED, REJECTED = 0, 1, 2
#: Columns of a record; the end of a row that says nothing is cut off. Texts are positions in ``texts``, a decision is its
#: number from 1.
COLUMNS = (
    "status", "stage", "phase", "kind", "name", "call", "slot", "module", "legacy_name", "form", "own", "own_accepted",
    "max_abs", "differing", "ulps", "max_rel", "mean_abs", "cosine", "not_finite", "note", "legacy_form", "share",
    "bounds", "size", "objection", "decision",
)  # fmt: skip
_TEXTS = frozenset(
    ("stage", "phase", "kind", "name", "slot", "module", "legacy_name", "form", "not_finite", "note", "legacy_form", "objection")
)


class _Texts:
    """Texts by number, each once; the first is the empty one."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def all(self) -> list[str]:
        return list(self._numbers)


def table(verdict: Verdict) -> dict[str, Any]:
    """Return all records in order of execution, the tree of modules, and what the numbers in them stand for.

    The result is plain data for JSON: no number in it is NaN or infinite.
    """
    tree = modules(verdict.comparisons, verdict.without_effect)
    places = {id(comparison): place for place, comparison in enumerate(verdict.comparisons)}
    first = verdict.divergence.comparison if verdict.divergence is not None else None
    isolation = verdict.isolation
    own = {c.pair.new.key: c for c in isolation.comparisons} if isolation is not None else {}
    decisions = {decision.call_key: number for number, decision in enumerate(verdict.decisions, 1)}
    harmless = {id(comparison) for comparison in verdict.without_effect}
    texts = _Texts()
    rows = []
    for comparison in verdict.comparisons:
        row = dict(_placed(comparison, id(comparison) in harmless), **_own(own.get(comparison.pair.new.key)))
        if comparison.difference is not None:
            row |= dict(_measured(comparison))
            if comparison.decision is not None:
                row["decision"] = decisions.get(comparison.decision.call_key)
        rows.append(_cut([texts.number(row.get(c) or "") if c in _TEXTS else row.get(c) for c in COLUMNS]))
    return {
        "columns": list(COLUMNS),
        "textual": sorted(_TEXTS),
        "records": rows,
        "modules": [_module(module, verdict) for module in tree],
        "texts": texts.all,
        "first": None if first is None else places.get(id(first), _place_of(verdict, first)),
        "isolated": isolation is not None,
        **_explained(verdict),
    }


def _explained(verdict: Verdict) -> dict[str, Any]:
    """Return the pictures of where records differ and what their differences are, by the record's place."""
    places = {comparison.pair.new.key: place for place, comparison in enumerate(verdict.comparisons)}
    diagnoses: dict[int, list[list[str]]] = {}
    explanations = [verdict.explanation]
    if verdict.isolation is not None:
        explanations += [culprit.explanation for culprit in verdict.isolation.culprits]
    for explanation in explanations:
        for one, line in zip(explanation.diagnoses, diagnosis_lines(explanation.diagnoses)):
            shown = line.split(": ", 1)
            if one.record in places and shown not in diagnoses.setdefault(places[one.record], []):
                diagnoses[places[one.record]].append(shown)
    heats = {
        places[heat.record]: {
            "shape": heat.shape, "largest": _short(heat.largest), "strips": heat.strips, "axes": heat.axes, "rows": heat.rows,
        }
        for explanation in explanations for heat in explanation.heats
        if heat.record in places
    }  # fmt: skip
    return {"heats": heats, "heat_steps": STEPS, "heat_decades": DECADES, "diagnoses": diagnoses}


def _place_of(verdict: Verdict, first: Comparison) -> int | None:
    """Return where the record stands that an isolated run blames."""
    key = first.pair.new.key
    return next((place for place, c in enumerate(verdict.comparisons) if c.pair.new.key == key), None)


def _module(module: Module, verdict: Verdict) -> dict[str, Any]:
    return {
        "path": module.path, "records": module.records, "identical": module.identical, "accepted": module.accepted,
        "worst": module.worst, "first": module.first, "code": verdict.classes.get("new", {}).get(module.path, ""),
    }  # fmt: skip


def _placed(comparison: Comparison, is_harmless: bool) -> Iterator[tuple[str, Any]]:
    new, legacy = comparison.pair.new, comparison.pair.legacy
    good = comparison.accepted or is_harmless
    yield "status", IDENTICAL if comparison.identical else ACCEPTED if good else REJECTED
    yield "stage", stage_of(comparison)
    yield "phase", new.phase
    yield "kind", Kind(new.kind).noun.removesuffix(" of")
    yield "name", new.name
    yield "call", new.call
    yield "slot", new.slot
    yield "legacy_name", legacy.name if legacy.name != new.name else ""
    yield "form", _form(new)
    yield "module", module_of(new)


def _own(alone: Comparison | None) -> dict[str, Any]:
    """Return the error of a record by itself; nothing where no isolated run has it."""
    if alone is None:
        return {}
    gap = 0.0 if alone.difference is None else alone.difference.max_abs
    return dict(own=_short(gap), own_accepted=int(alone.accepted))


def _measured(comparison: Comparison) -> Iterator[tuple[str, Any]]:
    new, legacy, difference = comparison.pair.new, comparison.pair.legacy, comparison.difference
    yield "max_abs", _short(difference.max_abs)
    yield "differing", _short(difference.differing)
    yield "note", difference.note
    yield "legacy_form", _form(legacy) if _form(legacy) != _form(new) else ""
    if difference.metrics is not None:
        yield from _figures(difference.metrics)
    if comparison.finding is not None:
        finding = comparison.finding
        yield "share", _short(share_of_allowed(finding))
        yield "bounds", [_short(number) for norms in _norms(finding) for number in (norms.max, norms.rms)]
        yield "size", _short(finding.size)
        yield "objection", finding.objection


def _norms(finding: Finding) -> tuple[Norms, ...]:
    return finding.error, finding.allowed, finding.error64, finding.allowed64


def _figures(metrics: Metrics) -> Iterator[tuple[str, Any]]:
    yield "ulps", metrics.ulps
    yield "max_rel", _short(metrics.max_rel)
    yield "mean_abs", _short(metrics.mean_abs)
    yield "cosine", _short(metrics.cosine, 9)
    counts = (("NaN", metrics.nan), ("Inf", metrics.inf))
    yield "not_finite", ", ".join(f"{what} {one} and {two}" for what, (one, two) in counts if one or two)


def _form(record: Record) -> str:
    return f"{record.dtype} [{', '.join(map(str, record.shape))}]"


def _short(value: float, digits: int = 4) -> float | None:
    """Return a number with few digits; None if it is none that JSON has."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _cut(row: list[Any]) -> list[Any]:
    """Leave out the end of a row that says nothing."""
    while row and row[-1] in (None, 0):
        row.pop()
    return row
