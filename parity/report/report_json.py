"""Render a verdict as plain data, for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from legacy_adapters.provenance import originals
from legacy_adapters.training.phases import rank_of, step_of

from ..comparing import derived
from ..comparing.compare import DERIVED, Comparison, Tolerance
from ..comparing.drift import AutocastFailure
from ..comparing.metrics import Metrics
from ..comparing.pairing import LEGACY, NEW
from ..sides.shared import shared_code, without_files
from ..verdict.isolation import Culprit
from ..verdict.labels import LabelCoverage
from ..verdict.verdict import Verdict
from . import sections
from .alone import things_and_aliases
from .diagnosis import diagnosis_dict
from .printing import finite
from .report import class_lines, closing_line, decision_at, exclusion_lines, tie_lines
from .stages import drift_stages, record_name, stage_of, stages
from .training import rounding_only

#: Of what :func:`as_dict` returns; another one when a field goes or means something else. ``verdict.schema.json`` has it.
SCHEMA = 1


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as plain data for ``--json``; ``verdict.schema.json`` beside this file describes it."""
    return {
        "schema": SCHEMA,
        "verdict": verdict.outcome,
        "exit_code": verdict.exit_code,
        "summary": closing_line(verdict),
        "reasons": list(verdict.reasons),
        "legacy_as_published": not originals.remark(verdict.provenance[LEGACY]),
        "tolerance": _tolerance_dict(verdict.tolerance, verdict.provenance[LEGACY].get("amp")),
        "records": len(verdict.comparisons),
        "identical": sum(comparison.identical for comparison in verdict.comparisons),
        "accepted": sum(comparison.accepted for comparison in verdict.comparisons),
        "stages": [
            {"name": s.name, "records": s.records, "identical": s.identical, "accepted": s.accepted}
            for s in stages(verdict.comparisons)
        ],
        "initial": [asdict(item) for item in verdict.initial],
        "steps": _steps(verdict.comparisons),
        "only_rounding": list(rounding_only(verdict)),
        "renamed_outputs": [{"legacy": one, "new": two} for one, two in verdict.renamed_outputs],
        "containers": [{"legacy": one, "new": two} for one, two in verdict.containers],
        "idle_names": list(verdict.idle_names),
        "suggested_aliases": things_and_aliases(verdict)[1],
        "forms": list(verdict.forms),
        "ties": tie_lines(verdict),
        "isolated": None if verdict.isolation is None else [_culprit_dict(one) for one in verdict.isolation.culprits],
        "isolated_reasons": None if verdict.isolation is None else list(verdict.isolation.reasons),
        "first_divergence": _divergence_dict(verdict),
        "diagnoses": [diagnosis_dict(one) for one in verdict.explanation.diagnoses],
        "differing": [_comparison_dict(c) for c in verdict.comparisons if not c.identical],
        "decisions": [sections.decision_dict(decision) for decision in verdict.decisions],
        "detections": [sections.image_dict(image) for image in verdict.detections],
        "coverage": {**sections.coverage_dict(verdict.coverage), "excluded": exclusion_lines(verdict)},
        "stopped": None if verdict.stop is None else asdict(verdict.stop),
        "labels": _labels_dict(verdict.labels),
        "degenerate": list(verdict.degenerate),
        "seeds_before": list(verdict.seeds_before),
        "autocast": None if verdict.autocast_failure is None else _autocast_dict(verdict.autocast_failure),
        "provenance": {side: without_files(verdict.provenance[side]) for side in (LEGACY, NEW)},
        "digests": dict(verdict.seals),
        "shared": None if (shared := shared_code(verdict.provenance)) is None else shared.as_dict(),
    }


def _steps(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Count per step of a training and rank, and name the largest difference of each kind."""
    groups: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        if step_of(comparison.pair.new.phase) is not None:
            groups.setdefault(comparison.pair.new.phase, []).append(comparison)
    return [
        {
            "step": step_of(phase),
            **({} if rank_of(phase) is None else {"rank": rank_of(phase)}),
            "records": len(group),
            "identical": sum(c.identical for c in group),
            "accepted": sum(c.accepted for c in group),
            "max_abs": _largest(group),
        }
        for phase, group in groups.items()
    ]


def _largest(comparisons: Sequence[Comparison]) -> dict[str, float]:
    largest: dict[str, float] = {}
    for comparison in comparisons:
        if comparison.difference is not None and math.isfinite(comparison.difference.max_abs):
            part = stage_of(comparison).removeprefix("steps: ")
            largest[part] = max(largest.get(part, 0.0), comparison.difference.max_abs)
    return largest


def _tolerance_dict(tolerance: Tolerance, amp: str | None) -> dict[str, Any]:
    if tolerance.name == DERIVED:
        return {"name": tolerance.name, **derived.constants(amp)}
    return {"name": tolerance.name, "rtol": tolerance.rtol, "atol": tolerance.atol}


def _divergence_dict(verdict: Verdict) -> dict[str, Any] | None:
    divergence = verdict.divergence
    if divergence is None:
        return None
    decision = decision_at(verdict, divergence.comparison) if divergence.comparison else None
    return {
        "where": divergence.where,
        "message": divergence.message,
        "hint": divergence.hint,
        "code": class_lines(verdict),
        "record": _comparison_dict(divergence.comparison) if divergence.comparison else None,
        "decision": None if decision is None else sections.decision_dict(decision),
    }


def _culprit_dict(culprit: Culprit) -> dict[str, Any]:
    return {
        "where": culprit.where,
        "message": culprit.message,
        "records": culprit.records,
        "follows": list(culprit.follows),
        "diagnoses": [diagnosis_dict(one) for one in culprit.explanation.diagnoses],
        "alone": None if culprit.alone is None else _comparison_dict(culprit.alone),
        "accumulated": None if culprit.accumulated is None else _comparison_dict(culprit.accumulated),
    }


def _comparison_dict(comparison: Comparison) -> dict[str, Any]:
    new, difference = comparison.pair.new, comparison.difference
    return {
        "phase": new.phase, "kind": new.kind, "name": new.name, "legacy_name": comparison.pair.legacy.name,
        "call": new.call, "slot": new.slot, "scope": new.scope, "accepted": comparison.accepted,
        "max_abs": finite(difference.max_abs) if difference is not None else None,
        "differing_share": difference.differing if difference else 0.0,
        "metrics": _metrics_dict(difference.metrics) if difference is not None else None,
        "note": difference.note if difference else "",
        "derived": None if comparison.finding is None else asdict(comparison.finding),
    }  # fmt: skip


def _metrics_dict(metrics: Metrics | None) -> dict[str, Any] | None:
    if metrics is None:
        return None
    return {
        "elements": metrics.elements,
        "max_rel": finite(metrics.max_rel),
        "mean_abs": finite(metrics.mean_abs),
        "cosine": finite(metrics.cosine),
        "ulps": metrics.ulps,
        "nan": dict(zip((LEGACY, NEW), metrics.nan)),
        "inf": dict(zip((LEGACY, NEW), metrics.inf)),
    }


def _autocast_dict(failure: AutocastFailure) -> dict[str, Any]:
    stages = drift_stages(failure.drifts)
    return {
        "told": failure.message,
        "compared": list(failure.compared),
        "drifts": [{**asdict(stage), "worst": record_name(stage.worst)} for stage in stages],
    }


def _labels_dict(labels: LabelCoverage) -> dict[str, Any]:
    fields = asdict(labels)
    fields["given"] = fields.pop("of_made_up")
    return {**fields, "lines": labels.lines()}
