"""Render a near-tie audit: for a terminal of 80 columns and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from legacy_adapters.ground.words import counted

from ..decisions.audit import Decision, by_closeness
from ..verdict.verdict import EXIT_CODES, INCOMPARABLE, MATCH, MISMATCH
from .printing import finite
from .sections import cut_list

Audited = tuple[Decision, ...]


def exit_code(decisions: Audited) -> int:
    """Return 0, 1 if a decision breaks its own rule, 3 if there is none."""
    if not decisions:
        return EXIT_CODES[INCOMPARABLE]
    return EXIT_CODES[MISMATCH if _faulty(decisions) else MATCH]


def closing_line(decisions: Audited, ulps: float) -> str:
    """Return the outcome in one line, e.g. ``AUDITED 32 decisions: 4 at risk within 1024 ULPs, 2 with exact ties``."""
    if not decisions:
        return f"{INCOMPARABLE} The trace holds no decision together with the numbers it rests on."
    faulty = _faulty(decisions)
    if faulty:
        return (
            f"{MISMATCH} {len(faulty)} of {counted(len(decisions), 'decision')} "
            f"{'breaks its' if len(faulty) == 1 else 'break their'} own rule. First at {faulty[0].place}."
        )
    risky = {decision.place for decision, way in by_closeness(decisions) if way.ulps <= ulps}
    return (
        f"AUDITED {counted(len(decisions), 'decision')}: {len(risky)} at risk within {ulps:g} ULPs, "
        f"{len(_with_ties(decisions))} with exact ties"
    )


def _faulty(decisions: Audited) -> list[Decision]:
    return [decision for decision in decisions if decision.fault]


def _with_ties(decisions: Audited) -> list[Decision]:
    return [decision for decision in decisions if any(way.exact for way in decision.ways)]


def print_audit(decisions: Audited, ulps: float, worst: int, console: Console, quiet: bool) -> None:
    """Write the closest ways, the exact ties and, last, one line that can be grepped; that alone if ``quiet``.

    Args:
        decisions: of a trace.
        ulps: up to which a decision is at risk.
        worst: number of ways to list.
        console: to write to.
        quiet: write the last line only.
    """
    if not quiet and decisions:
        ways = by_closeness(decisions)
        console.print(_table(decisions, ulps, worst))
        for line in _lines(decisions, len(ways) - worst):
            console.print(line, markup=False, highlight=False)
    console.print(closing_line(decisions, ulps), markup=False, highlight=False, soft_wrap=True)


def _lines(decisions: Audited, left: int) -> list[str]:
    lines = [f"and {left} more, farther from a tie"] if left > 0 else []
    ties = [f"{decision.place} {way.name} x{way.exact}" for decision in decisions for way in decision.ways if way.exact]
    if ties:
        lines.append(cut_list("exact ties: ", ties))
    return lines + [f"breaks its rule: {decision.place} {decision.fault}" for decision in _faulty(decisions)]


def _table(decisions: Audited, ulps: float, worst: int) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False)
    for title in ("decision", "otherwise by"):
        table.add_column(title, no_wrap=True)
    for title in ("gap", "ULPs"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("risk", no_wrap=True)
    table.add_column("closest")
    for decision, way in by_closeness(decisions)[:worst]:
        risky = way.ulps <= ulps
        where = Text(way.where, no_wrap=True, overflow="ellipsis")
        cells = decision.place, f"{way.name} ({way.quantity})", f"{way.gap:.2g}", f"{way.ulps:.3g}"
        table.add_row(*map(Text, cells), "!" if risky else "", where, style="bold" if risky else None)
    return table


def as_dict(decisions: Audited, ulps: float) -> dict[str, Any]:
    """Return the audit as plain data for ``--json``: every decision with every way, in recording order."""
    return {
        "exit_code": exit_code(decisions),
        "summary": closing_line(decisions, ulps),
        "ulps": ulps,
        "decisions": [
            {
                "phase": decision.phase,
                "name": decision.name,
                "call": decision.call,
                "fault": decision.fault,
                "at_risk": any(way.ulps <= ulps for way in decision.ways),
                "ways": [{**asdict(way), "gap": finite(way.gap), "ulps": finite(way.ulps)} for way in decision.ways],
            }
            for decision in decisions
        ],
    }
