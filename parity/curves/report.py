"""Tell what the comparison of two trainings showed: for a terminal of 80 columns, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from legacy_adapters.ground.words import counted

from ..report.printing import finite, print_wrapped
from ..verdict.outcome import MATCH
from .curves import AP, LEVEL, STRETCH, CurvesVerdict, Quantity, counts
from .runlog import EPOCHS, RunLog

_MOST_ROWS = 16


def print_verdict(verdict: CurvesVerdict, console: Console, quiet: bool) -> None:
    """Write the tables and, last, one line that can be grepped; that alone if ``quiet``."""
    if not quiet:
        for line in _head(verdict):
            print_wrapped(line, console)
        for kinds, title in (((LEVEL,), "loss term"), ((AP,), "AP")):
            rows = [quantity for quantity in verdict.quantities if quantity.kind in kinds]
            if rows:
                _print_table(rows, title, verdict, console)
        for line in _rejected_lines(verdict):
            print_wrapped(line, console)
        for note in verdict.notes:
            print_wrapped(f"note: {note}", console)
    console.print(closing_line(verdict), markup=False, highlight=False, soft_wrap=True)


def closing_line(verdict: CurvesVerdict) -> str:
    """Return the verdict in one line: ``MATCH 46 loss terms and 12 APs within the noise of 5 runs; ...``."""
    if verdict.outcome != MATCH:
        first = next((f" First: {place(q, verdict)}." for q in verdict.rejected), "")
        return f"{verdict.outcome} {' '.join(verdict.reasons)}{first}"
    compared = " and ".join(
        counted(total, what.removesuffix("s")) for what, (_, total) in counts(verdict.quantities).items() if total
    )
    if verdict.identical:
        return f"MATCH {compared}: both logged the same numbers"
    return f"MATCH {compared} within the noise of {1 + len(verdict.band)} runs; {_resolution(verdict)} would show"


def _resolution(verdict: CurvesVerdict) -> str:
    """Tell how small a difference lies outside in every loss term, and in every AP."""
    halves = {
        kind: [q for q in verdict.quantities if q.kind == kind and q.interval is not None] for kind in (LEVEL, AP)
    }
    of_losses = [(q.interval.half, abs(q.reference)) for q in halves[LEVEL]]
    parts = [f"losses from {max(half / base if base else 0.0 for half, base in of_losses):.1%}"] * bool(of_losses)
    parts += [f"APs from {max(q.interval.half for q in halves[AP]):.3f}"] if halves[AP] else []
    return " and ".join(parts) + " on"


def place(quantity: Quantity, verdict: CurvesVerdict) -> str:
    """Name a quantity and its part of the training, e.g. ``loss_bbox, epochs 3 to 6``."""
    unit = verdict.a.unit
    if quantity.kind == AP:
        return f"{quantity.name} after {unit.removesuffix('s')} {quantity.end:.6g}"
    if quantity.kind == LEVEL:
        return f"{quantity.name}, mean of all {unit}"
    return f"{quantity.name}, {unit} {quantity.start:.4g} to {quantity.end:.4g}"


def _head(verdict: CurvesVerdict) -> Iterator[str]:
    yield f"A: {_described(verdict.a)}"
    yield f"B: {_described(verdict.b)}"
    for number, log in enumerate(verdict.band, 1):
        yield f"band {number}: {_described(log)}"


def _described(log: RunLog) -> str:
    length = f" of {counted(log.epoch_length, 'iteration')}" if log.unit == EPOCHS and log.epoch_length else ""
    entries = max(len(curve) for curve in log.terms.values()) if log.terms else 0
    unit = log.unit if log.end != 1 else log.unit.removesuffix("s")
    return f"{log.name}, {counted(entries, 'entry', 'entries')} in {log.end:.4g} {unit}{length}"


def _print_table(rows: Sequence[Quantity], title: str, verdict: CurvesVerdict, console: Console) -> None:
    shown = _most_important(rows)
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column(title, no_wrap=True, overflow="ellipsis", max_width=30)
    reference = "A" if not verdict.band else f"{1 + len(verdict.band)} runs"
    for name in (reference, "B", "differs by", *(["allowed"] if verdict.band else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for row in shown:
        style = "bold red" if row.accepted is False else None
        name = f"{row.name} {verdict.a.unit.removesuffix('s')} {row.end:.6g}" if row.kind == AP else row.name
        table.add_row(Text(name), *_figures(row)[: len(table.columns) - 1], style=style)
    console.print(table)
    if len(shown) < len(rows):
        within = "not outside" if verdict.band else "with smaller differences"
        console.print(f"and {len(rows) - len(shown)} more, {within}", highlight=False)


def _figures(row: Quantity) -> tuple[str, str, str, str]:
    half = row.interval.half if row.interval is not None else None
    gap = row.b - row.reference
    digits = 4 if row.kind == AP else 5
    numbers = f"{row.reference:.{digits}g}", f"{row.b:.{digits}g}"
    if row.kind == AP:
        return *numbers, f"{gap:+.4f}", "" if half is None else f"{half:.4f}"
    base = abs(row.reference)
    return *numbers, _share(gap, base, "+"), "" if half is None else _share(half, base, "")


def _share(value: float, base: float, sign: str) -> str:
    if not math.isfinite(value):
        return f"{value:g}"
    return f"{value / base:{sign}.2%}" if base else f"{value:{sign}.3g}"


def _most_important(rows: Sequence[Quantity]) -> list[Quantity]:
    """Return what is rejected and what comes closest to it, in the order of ``rows``."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i].accepted is not False, -_closeness(rows[i])))
    return [rows[i] for i in sorted(order[:_MOST_ROWS])]


def _closeness(row: Quantity) -> float:
    """Return how far B lies from the others, in units of what is allowed or, without that, relatively."""
    gap = abs(row.b - row.reference)
    base = row.interval.half if row.interval is not None else abs(row.reference)
    return math.inf if not math.isfinite(gap) or (gap and not base) else gap / base if base else 0.0


def _rejected_lines(verdict: CurvesVerdict) -> Iterator[str]:
    """Tell of the stretches outside, which have no row of their own; of each term the earliest."""
    seen = set()
    for quantity in verdict.rejected:
        if quantity.kind == STRETCH and quantity.name not in seen and len(seen) < _MOST_ROWS:
            seen.add(quantity.name)
            low, high = quantity.interval.mean - quantity.interval.half, quantity.interval.mean + quantity.interval.half
            yield f"outside: {place(quantity, verdict)}: {quantity.b:.5g}, expected {low:.5g} to {high:.5g}"



def as_dict(verdict: CurvesVerdict) -> dict[str, Any]:
    """Return the verdict as plain data for ``--json``; numbers that JSON lacks are null."""
    return {
        "verdict": verdict.outcome,
        "exit_code": verdict.exit_code,
        "summary": closing_line(verdict),
        "reasons": list(verdict.reasons),
        "notes": list(verdict.notes),
        "identical": verdict.identical,
        "level": verdict.level,
        "resolve": verdict.resolve,
        "unit": verdict.a.unit,
        "end": verdict.end,
        "logs": {
            "a": _log_dict(verdict.a),
            "b": _log_dict(verdict.b),
            "band": [_log_dict(log) for log in verdict.band],
        },
        "quantities": [_quantity_dict(quantity) for quantity in verdict.quantities],
    }


def _log_dict(log: RunLog) -> dict[str, Any]:
    return {
        "name": log.name,
        "files": [str(file) for file in log.files],
        "epoch_length": log.epoch_length,
        "interval": log.interval,
        "end": log.end,
    }


def _quantity_dict(quantity: Quantity) -> dict[str, Any]:
    interval = quantity.interval
    return {
        "kind": quantity.kind,
        "name": quantity.name,
        "start": quantity.start,
        "end": quantity.end,
        "a": finite(quantity.a),
        "b": finite(quantity.b),
        "band": [finite(value) for value in quantity.band],
        "mean": finite(quantity.reference),
        "spread": None if interval is None else finite(interval.spread),
        "allowed": None if interval is None else finite(interval.half),
        "accepted": quantity.accepted,
    }
