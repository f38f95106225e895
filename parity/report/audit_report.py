"""Render a near-tie audit: for a terminal of 80 columns and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from legacy_adapters.ground.words import counted

from ..decisions.audit import AuditedDecision, by_closeness
from ..decisions.rule import Alternative
from ..verdict.verdict import EXIT_CODES, INCOMPARABLE, MATCH, MISMATCH
from .printing import finite
from .sections import cut_list

Audited = tuple[AuditedDecision, ...]


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
    risky = {decision.place for decision, alternative in by_closeness(decisions) if alternative.ulps <= ulps}
    return (
        f"AUDITED {counted(len(decisions), 'decision')}: {len(risky)} at risk within {ulps:g} ULPs, "
        f"{len(_with_ties(decisions))} with exact ties"
    )


def _faulty(decisions: Audited) -> list[AuditedDecision]:
    return [decision for decision in decisions if decision.fault]


def _with_ties(decisions: Audited) -> list[AuditedDecision]:
    return [decision for decision in decisions if any(alternative.exact for alternative in decision.alternatives)]


def print_audit(decisions: Audited, ulps: float, worst: int, console: Console, quiet: bool) -> None:
    """Write the closest alternatives, the exact ties and, last, one line that can be grepped; that alone if ``quiet``.

    Args:
        decisions: of a trace.
        ulps: up to which a decision is at risk.
        worst: number of alternatives to list.
        console: to write to.
        quiet: write the last line only.
    """
    if not quiet and decisions:
        alternatives = by_closeness(decisions)
        console.print(_table(decisions, ulps, worst))
        for line in _lines(decisions, len(alternatives) - worst):
            console.print(line, markup=False, highlight=False)
    console.print(closing_line(decisions, ulps), markup=False, highlight=False, soft_wrap=True)


def _lines(decisions: Audited, left: int) -> list[str]:
    lines = [f"and {left} more, farther from a tie"] if left > 0 else []
    ties = [
        f"{decision.place} {alternative.name} x{alternative.exact}"
        for decision in decisions
        for alternative in decision.alternatives
        if alternative.exact
    ]
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
    for decision, alternative in by_closeness(decisions)[:worst]:
        risky = alternative.ulps <= ulps
        where = Text(alternative.where, no_wrap=True, overflow="ellipsis")
        name = f"{alternative.name} ({alternative.quantity})"
        cells = decision.place, name, f"{alternative.gap:.2g}", f"{alternative.ulps:.3g}"
        table.add_row(*map(Text, cells), "!" if risky else "", where, style="bold" if risky else None)
    return table


def as_dict(decisions: Audited, ulps: float) -> dict[str, Any]:
    """Return the audit as plain data for ``--json``: every decision with every alternative, in recording order."""
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
                "at_risk": any(alternative.ulps <= ulps for alternative in decision.alternatives),
                "ways": [_alternative_dict(alternative) for alternative in decision.alternatives],
            }
            for decision in decisions
        ],
    }


def _alternative_dict(alternative: Alternative) -> dict[str, Any]:
    return {**asdict(alternative), "gap": finite(alternative.gap), "ulps": finite(alternative.ulps)}
