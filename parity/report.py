"""Render a verdict: for a terminal of 80 columns and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from legacy_adapters.steps import OWN, TWIN, step_of

from . import derived
from .blame import Divergence
from .compare import DERIVED, FIXED, Comparison, Tolerance
from .golden import Golden
from .pairing import LEGACY, NEW, Unpaired
from .verdict import MATCH, Verdict

_PHASES = {"predict": "inference", "train": "training"}
_PARTS = {
    "loss": "losses",
    "grad": "gradients",
    "clip": "clip norm",
    "setting": "settings",
    "optim_state": "optimizer state",
    "state": "state afterwards",
}


@dataclass(frozen=True)
class Stage:
    """A line of the table.

    Attributes:
        name: part of the model, in order of execution.
        records: compared.
        identical: with the same bits.
        accepted: equal under the tolerance.
        worst: the comparison with the largest difference, None if all are identical.
    """

    name: str
    records: int
    identical: int
    accepted: int
    worst: Comparison | None


def stages(comparisons: Sequence[Comparison]) -> tuple[Stage, ...]:
    """Group comparisons by part of the model, in the order the parts first ran."""
    groups: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(stage_of(comparison), []).append(comparison)
    return tuple(
        Stage(
            name,
            len(group),
            sum(comparison.identical for comparison in group),
            sum(comparison.accepted for comparison in group),
            max((c for c in group if not c.identical), key=_size, default=None),
        )
        for name, group in groups.items()
    )


def stage_of(comparison: Comparison) -> str:
    """Name the stage of a record: ``weights``, ``inference: encoder``, ``training: losses`` ..."""
    record = comparison.pair.new
    if record.kind == "param":
        return "weights"
    part = _PARTS.get(record.kind)
    if record.kind in ("tap", "basis"):
        part = "noise" if record.name == "noise" else record.name if record.name == "result" else "decisions"
    phase = _PHASES.get(record.phase, "steps" if step_of(record.phase) is not None else record.phase)
    return f"{phase}: {part or record.name.split('.')[0]}"


def _size(comparison: Comparison) -> float:
    gap = comparison.difference.max_abs if comparison.difference else 0.0
    return math.inf if math.isnan(gap) else gap


def print_verdict(verdict: Verdict, console: Console, quiet: bool) -> None:
    """Write the table, the first divergence and, last, one line that can be grepped; that alone if ``quiet``."""
    if not quiet:
        for side, provenance in verdict.provenance.items():
            console.print(provenance_line(side, provenance), markup=False, highlight=False)
        console.print(_table(verdict.comparisons))
        _print_coverage(verdict, console)
        if verdict.divergence is not None:
            _print_divergence(verdict.divergence, class_lines(verdict), console)
    console.print(closing_line(verdict), markup=False, highlight=False, soft_wrap=True)


def provenance_line(side: str, provenance: dict[str, Any]) -> str:
    """Tell in one line which code a side ran and under which conditions."""
    modules = ", ".join(f"{name} {module['version']}".strip() for name, module in provenance.get("modules", {}).items())
    code = " ".join(str(provenance[key]) for key in ("code_base", "commit") if key in provenance)
    threads, capability = provenance.get("threads"), provenance.get("cpu_capability")
    return f"{side}: {code} ({modules}), torch {provenance.get('torch')}, {threads} threads, {capability}"


def _table(comparisons: Sequence[Comparison]) -> Table:
    found = stages(comparisons)
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("stage", no_wrap=True, overflow="ellipsis", max_width=30)
    for title in ("records", "equal", "max diff"):
        table.add_column(title, justify="right", no_wrap=True)
    # the only column that rich may shrink: of columns that all refuse to wrap it takes from each alike
    table.add_column("worst record" if any(stage.worst for stage in found) else "")
    for stage in found:
        style = None if stage.accepted == stage.records else "bold red"
        name = Text(_record_name(stage.worst) if stage.worst else "", no_wrap=True, overflow="ellipsis")
        table.add_row(Text(stage.name), str(stage.records), str(stage.accepted), _gap(stage.worst), name, style=style)
    return table


def _gap(comparison: Comparison | None) -> str:
    if comparison is None or comparison.difference is None:
        return "0"
    gap = comparison.difference.max_abs
    return "n/a" if math.isnan(gap) else f"{gap:.3g}"


def _record_name(comparison: Comparison) -> str:
    record = comparison.pair.new
    slot = f".{record.slot}" if record.slot else ""
    step = step_of(record.phase)
    return f"{record.name}#{record.call}{slot}" if step is None else f"step {step} {record.name}#{record.call}{slot}"


def _print_coverage(verdict: Verdict, console: Console) -> None:
    coverage = verdict.coverage
    console.print(
        f"leaf calls paired {coverage.paired_leaf_calls} of {coverage.legacy_leaf_calls}, "
        f"records excluded {len(coverage.excluded_records)}, unaccounted {len(coverage.unaccounted)}",
        highlight=False,
    )
    for line in training_lines(verdict):
        console.print(line, markup=False, highlight=False)
    for line in exclusion_lines(verdict):
        console.print(f"  excluded {line}", markup=False, highlight=False)
    for line in tie_lines(verdict):
        console.print(f"  decided otherwise: {line}", markup=False, highlight=False)


def training_lines(verdict: Verdict) -> list[str]:
    """Return how the steps of check train were taken, and the optimizers' groups; nothing without that check."""
    told = verdict.provenance
    if not told[LEGACY].get("steps"):
        return []
    first = told[LEGACY]
    orders = {TWIN: "the legacy side's order of parameters on both sides", OWN: "each side's own order of parameters"}
    groups = [
        f"{side} {p.get('optimizer')} with {p.get('optimizer_groups')} groups, {p.get('frozen_in_groups')} frozen"
        for side, p in told.items()
    ]
    ends = "one endless epoch" if first["epoch_length"] == "endless" else f"epochs of {first['epoch_length']}"
    start = ", each from the legacy side's state" if told[NEW].get("forced") else ""
    return [
        f"{first['steps']} training steps{start}, in {ends}; clip norm summed in {orders[first['clip_order']]}",
        f"  {'; '.join(groups)}: of those only the state afterwards is compared",
    ]


def tie_lines(verdict: Verdict) -> list[str]:
    """Return one line per decision that differs and was accepted, with its margin."""
    return [
        f"{c.pair.new.phase} {c.pair.new.name}#{c.pair.new.call} {c.pair.new.slot}: {c.difference.note}"
        for c in verdict.comparisons
        if c.pair.new.kind == "tap" and not c.pair.new.is_float and c.accepted and c.difference is not None
    ]


def exclusion_lines(verdict: Verdict) -> list[str]:
    """Return one line per exclusion in use: count, side, record pattern, reason."""
    counts = Counter(item.exclusion for item in verdict.coverage.excluded_records)
    return [
        f"{count} x {exclusion.side} {exclusion.kind} {exclusion.name} {exclusion.slot}: {exclusion.reason}"
        for exclusion, count in counts.items()
        if exclusion is not None
    ]


def _print_divergence(divergence: Divergence, classes: list[str], console: Console) -> None:
    difference = divergence.comparison.difference if divergence.comparison else None
    console.print(f"first divergence: {divergence.message}", style="bold", markup=False, highlight=False)
    if difference is not None:
        share = f"{difference.differing:.1%} of the elements differ, largest by {difference.max_abs:.3g}"
        console.print(f"  {difference.note or share}", markup=False, highlight=False)
    for line in classes:
        console.print(f"  {line}", markup=False, highlight=False)


def class_lines(verdict: Verdict) -> list[str]:
    """Return a line per side with the class of the blamed module, where its code is to be looked for."""
    divergence = verdict.divergence
    if divergence is None or divergence.modules is None:
        return []
    sides = zip((LEGACY, NEW), divergence.modules)
    return [f"{side} code: {verdict.classes[side][path]}" for side, path in sides if path in verdict.classes[side]]


def closing_line(verdict: Verdict) -> str:
    """Return the verdict in one line, e.g. ``MATCH 4654 of 4654 records bit-identical``."""
    total = len(verdict.comparisons)
    identical = sum(comparison.identical for comparison in verdict.comparisons)
    if verdict.outcome == MATCH:
        tolerance = verdict.tolerance
        bounds = f" (rtol {tolerance.rtol:g}, atol {tolerance.atol:g})" if tolerance.name == FIXED else ""
        accepted = "" if identical == total else f", {total} within {tolerance.name} tolerance{bounds}"
        replayed = ", legacy decisions and draws replayed" if verdict.provenance[NEW].get("replayed") else ""
        return f"MATCH {identical} of {total} records bit-identical{accepted}{replayed}"
    where = f" First at {divergence.where}." if (divergence := verdict.divergence) is not None else ""
    return f"{verdict.outcome} {' '.join(verdict.reasons)}{where}"


def golden_line(golden: Golden, file: Path) -> str:
    """Say in one line what was recorded, e.g. ``CAPTURED 2243 records of ddq_detr tiny_4scale -> FILE, 0.4 MB``."""
    megabytes = file.stat().st_size / 1e6
    task = golden.task
    return f"CAPTURED {len(golden.records)} records of {task.family} {task.variant} -> {file}, {megabytes:.1f} MB"


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as plain data for ``--json``."""
    coverage = verdict.coverage
    return {
        "verdict": verdict.outcome,
        "exit_code": verdict.exit_code,
        "summary": closing_line(verdict),
        "reasons": list(verdict.reasons),
        "tolerance": _tolerance_dict(verdict.tolerance),
        "records": len(verdict.comparisons),
        "identical": sum(comparison.identical for comparison in verdict.comparisons),
        "accepted": sum(comparison.accepted for comparison in verdict.comparisons),
        "stages": [
            {"name": s.name, "records": s.records, "identical": s.identical, "accepted": s.accepted}
            for s in stages(verdict.comparisons)
        ],
        "steps": _steps(verdict.comparisons),
        "ties": tie_lines(verdict),
        "first_divergence": _divergence_dict(verdict),
        "differing": [_comparison_dict(c) for c in verdict.comparisons if not c.identical],
        "coverage": {
            "legacy_leaf_calls": coverage.legacy_leaf_calls,
            "paired_leaf_calls": coverage.paired_leaf_calls,
            "excluded": exclusion_lines(verdict),
            "excluded_records": len(coverage.excluded_records),
            "unaccounted": [_unpaired_line(item) for item in coverage.unaccounted],
            "never_executed": {side: list(names) for side, names in coverage.never_executed.items()},
            "gradients_on_one_side": list(coverage.gradients_on_one_side),
        },
        "provenance": {side: verdict.provenance[side] for side in (LEGACY, NEW)},
    }


def _steps(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Count per step of a training, and name the largest difference of each kind."""
    groups: dict[int, list[Comparison]] = {}
    for comparison in comparisons:
        step = step_of(comparison.pair.new.phase)
        if step is not None:
            groups.setdefault(step, []).append(comparison)
    return [
        {
            "step": step,
            "records": len(group),
            "identical": sum(c.identical for c in group),
            "accepted": sum(c.accepted for c in group),
            "max_abs": _largest(group),
        }
        for step, group in groups.items()
    ]


def _largest(comparisons: Sequence[Comparison]) -> dict[str, float]:
    found: dict[str, float] = {}
    for comparison in comparisons:
        if comparison.difference is not None and math.isfinite(comparison.difference.max_abs):
            part = stage_of(comparison).removeprefix("steps: ")
            found[part] = max(found.get(part, 0.0), comparison.difference.max_abs)
    return found


def _tolerance_dict(tolerance: Tolerance) -> dict[str, Any]:
    if tolerance.name == DERIVED:
        return {"name": tolerance.name, **derived.constants()}
    return {"name": tolerance.name, "rtol": tolerance.rtol, "atol": tolerance.atol}


def _unpaired_line(item: Unpaired) -> str:
    record = item.record
    return f"{item.side} {record.phase} {record.kind} {record.name}#{record.call} {record.slot}".rstrip()


def _divergence_dict(verdict: Verdict) -> dict[str, Any] | None:
    divergence = verdict.divergence
    if divergence is None:
        return None
    return {
        "where": divergence.where,
        "message": divergence.message,
        "code": class_lines(verdict),
        "record": _comparison_dict(divergence.comparison) if divergence.comparison else None,
    }


def _comparison_dict(comparison: Comparison) -> dict[str, Any]:
    new, difference = comparison.pair.new, comparison.difference
    return {
        "phase": new.phase, "kind": new.kind, "name": new.name, "legacy_name": comparison.pair.legacy.name,
        "call": new.call, "slot": new.slot, "scope": new.scope, "accepted": comparison.accepted,
        "max_abs": difference.max_abs if difference is not None and math.isfinite(difference.max_abs) else None,
        "differing_share": difference.differing if difference else 0.0,
        "note": difference.note if difference else "",
        "derived": None if comparison.finding is None else asdict(comparison.finding),
    }  # fmt: skip
