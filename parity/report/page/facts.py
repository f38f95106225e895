"""What the page says in words and tables, without its scripts: plain data for the template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from legacy_adapters.ground.words import capital

from ...comparing.compare import FIXED
from ...comparing.pairing import LEGACY, NEW
from ...decisions.audit import AuditedDecision, by_closeness
from ...sides.shared import shared_code, without_files
from ...traces.kinds import OF_METHODS
from ...verdict.verdict import Verdict
from .. import report, sections
from ..alone import backward_lines, things_and_aliases
from ..diagnosis import diagnosis_lines
from ..rounding import rounding_lines, without_effect_lines
from ..stages import drift_stages, gap_text, record_name, stages
from ..training import training_lines, zero_lines
from .records import table

#: Decisions nearest to a tie, and detections without a partner in an image, that the page lists.
CLOSEST, MOST_LONE = 30, 20
#: Of what provenance says in few words, in this order; the rest is folded.
_PROVENANCE = (
    "code_base", "commit", "modules", "mmcv_ops", "family", "variant", "config", "torch", "numpy", "python", "machine", "device",
    "gpu", "threads", "cpu_capability", "dtype", "amp", "seed", "checks", "batch_sizes", "steps", "ranks", "replayed",
    "peak_memory",
)  # fmt: skip


def facts(verdict: Verdict, audited: Sequence[AuditedDecision]) -> dict[str, Any]:
    """Return all that the template shows; ``audited`` are the decisions of one side, none if they were not examined."""
    provenance = verdict.provenance
    data = table(verdict)
    places = {id(comparison): place for place, comparison in enumerate(verdict.comparisons)}
    closing = report.closing_line(verdict)
    return {
        "title": " ".join(str(provenance[LEGACY].get(name) or "") for name in ("family", "variant")).strip() or "model",
        "outcome": verdict.outcome,
        "closing": capital(closing.removeprefix(verdict.outcome).strip()),
        "exit_code": verdict.exit_code,
        "counts": list(_counts(verdict)),
        "reasons": [*verdict.reasons, *map(capital, backward_lines(verdict))],
        "divergence": None
        if verdict.divergence is None
        else {
            "where": verdict.divergence.where,
            "message": verdict.divergence.message,
            "lines": report.divergence_lines(verdict),
            "record": data["first"],
        },
        "isolated": _isolated(verdict, places),
        "initial": [item.message for item in verdict.initial],
        "stopped": None if verdict.stop is None else f"{verdict.stop.error}\n{verdict.stop.traceback}".strip(),
        "stages": list(_stages(verdict, places)),
        "coverage": _coverage(verdict),
        "notes": list(_notes(verdict)),
        "drifts": list(_drifts(verdict)),
        "decisions": [sections.decision_dict(decision) for decision in verdict.decisions],
        "ties": report.tie_lines(verdict),
        "audit": _audit(audited),
        "detections": [_image(image) for image in map(sections.image_dict, verdict.detections)],
        "provenance": list(_provenance(verdict)),
        "more": {side: _json(without_files(provenance[side])) for side in (LEGACY, NEW)},
        "data": data,
    }


def _counts(verdict: Verdict) -> Iterator[tuple[str, str]]:
    total = len(verdict.comparisons)
    rejected = [comparison.pair.new.kind in OF_METHODS for comparison in verdict.comparisons if not comparison.accepted]
    yield "records compared", f"{total:,}"
    yield "bit-identical", f"{sum(comparison.identical for comparison in verdict.comparisons):,}"
    yield "differ", f"{rejected.count(False):,}"
    if True in rejected:
        yield "more differ between methods only", f"{rejected.count(True):,}"
    tolerance = verdict.tolerance
    bounds = f", rtol {tolerance.rtol:g}, atol {tolerance.atol:g}" if tolerance.name == FIXED else ""
    yield "tolerance", tolerance.name + bounds
    coverage = verdict.coverage
    yield "leaf calls paired", f"{coverage.paired_leaf_calls:,} of {coverage.legacy_leaf_calls:,}"
    yield "unaccounted", f"{len(coverage.unaccounted):,}"


def _isolated(verdict: Verdict, places: Mapping[int, int]) -> dict[str, Any] | None:
    isolation = verdict.isolation
    if isolation is None:
        return None
    lines = report.culprit_lines(isolation)
    return {
        "reasons": list(isolation.reasons),
        "culprits": [
            {"line": line, "message": culprit.message, "record": places.get(id(culprit.accumulated)), "follows": list(culprit.follows),
             "diagnoses": diagnosis_lines(culprit.explanation.diagnoses)}
            for line, culprit in zip(lines, isolation.culprits)
        ],
    }


def _stages(verdict: Verdict, places: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    alone = {stage.name: stage for stage in stages(verdict.isolation.comparisons)} if verdict.isolation else {}
    for stage in stages(verdict.comparisons, verdict.without_effect):
        worst = stage.worst
        own = alone.get(stage.name)
        yield {
            "name": stage.name, "records": stage.records, "identical": stage.identical, "accepted": stage.accepted,
            "alone": None if own is None else own.accepted,
            "gap": gap_text(worst), "worst": record_name(worst.pair.new) if worst else "",
            "record": places.get(id(worst)) if worst else None,
        }  # fmt: skip


def _coverage(verdict: Verdict) -> dict[str, Any]:
    coverage, (things, aliases) = verdict.coverage, things_and_aliases(verdict)
    return {
        "paired": coverage.paired_leaf_calls,
        "calls": coverage.legacy_leaf_calls,
        "excluded_calls": coverage.excluded_leaf_calls,
        "excluded": len(coverage.excluded_records),
        "elsewhere": len(coverage.explained_records),
        "alone": [*(f"without a twin: {thing}" for thing in things), *(f"perhaps one thing: {alias}" for alias in aliases)],
        "unaccounted": [sections.unpaired_name(item) for item in coverage.unaccounted],
        "exclusions": report.exclusion_lines(verdict),
        "lists": [{"title": capital(what), "names": list(names)} for what, names in sections.coverage_lists(coverage)],
    }


def _notes(verdict: Verdict) -> Iterator[str]:
    """Yield what a person should know of the run beside its outcome, one sentence or line each."""
    for lines in (
        verdict.degenerate,
        [verdict.autocast_failure.message] if verdict.autocast_failure else [],
        rounding_lines(verdict),
        zero_lines(verdict),
        without_effect_lines(verdict),
        training_lines(verdict),
        verdict.labels.lines(),
        [f"taken for one, for they hold the same parameters: {one} and {two}" for one, two in verdict.containers],
        sections.idle_lines(verdict.idle_names, verdict.provenance[LEGACY].get("family")),
        [shared.line()] if (shared := shared_code(verdict.provenance)) is not None else [],
    ):
        yield from (capital(line.strip()) for line in lines)


def _drifts(verdict: Verdict) -> Iterator[dict[str, Any]]:
    for stage in drift_stages(verdict.autocast_failure.drifts) if verdict.autocast_failure else ():
        yield {
            "name": stage.name, "records": stage.records, "median": f"{100 * stage.median:.3g}",
            "largest": f"{100 * stage.largest:.3g}", "worst": record_name(stage.worst),
        }  # fmt: skip


def _audit(audited: Sequence[AuditedDecision]) -> dict[str, Any] | None:
    if not audited:
        return None
    near = by_closeness(tuple(audited))
    ties = sum(alternative.exact for decision in audited for alternative in decision.alternatives)
    return {
        "decisions": len(audited),
        "left": max(0, len(near) - CLOSEST),
        "ties": ties,
        "faults": [f"{decision.place} {decision.fault}" for decision in audited if decision.fault],
        "rows": [
            {
                "place": decision.place, "name": f"{one.name} ({one.quantity})", "gap": f"{one.gap:.2g}",
                "ulps": f"{one.ulps:.3g}", "where": one.where,
            }
            for decision, one in near[:CLOSEST]
        ],
    }  # fmt: skip


def _image(image: dict[str, Any]) -> dict[str, Any]:
    lone = {
        side: [f"label {one['label']}" + ("" if one["score"] is None else f" score {one['score']:.3g}") for one in ones]
        for side, ones in image["unmatched"].items()
    }
    gap = image["score_gap"]
    return {
        **image,
        "iou": f"{image['worst_iou']:.6g}",
        "gap": "n/a" if gap is None else f"{gap:.2g}",
        "lone": [
            f"{side} only: {', '.join(names[:MOST_LONE])}" + (f" (+{len(names) - MOST_LONE} more)" if len(names) > MOST_LONE else "")
            for side, names in lone.items()
            if names
        ],
    }


def _provenance(verdict: Verdict) -> Iterator[tuple[str, str, str]]:
    """Yield what is known of both sides: what it is, that of the legacy side, that of the new one."""
    one, two = verdict.provenance[LEGACY], verdict.provenance[NEW]
    for name in _PROVENANCE:
        said = [_said(name, side.get(name)) for side in (one, two)]
        if any(said):
            yield name.replace("_", " "), *said
    if any(verdict.seals.values()):
        yield "digest of the recording", *(verdict.seals.get(side) or "" for side in (LEGACY, NEW))


def _said(name: str, value: Any) -> str:
    if value is None or value in ("", [], {}):
        return ""
    if name == "modules":
        return ", ".join(f"{module} {known.get('version') or ''}".strip() for module, known in value.items())
    if name == "peak_memory":
        return ", ".join(f"{where} {number / 1e9:.1f} GB" for where, number in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{key} {_said(name, one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join("x".join(map(str, one)) if isinstance(one, list | tuple) else str(one) for one in value)
    return str(value)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, default=str)
