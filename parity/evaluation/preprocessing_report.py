"""Tell what the comparison of preprocessing showed: for a terminal of 80 columns, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from legacy_adapters.ground.words import counted
from legacy_adapters.provenance import originals

from ..comparing.pairing import LEGACY
from ..report.printing import print_wrapped
from ..report.report import as_sentence, provenance_line
from ..sides.shared import shared_code, without_files
from ..verdict.outcome import MATCH
from .preprocessing import PreprocessingVerdict, StepDifference

_MOST_LINES = 10
#: Of the JSON; fields may be added under one number.
SCHEMA = 1


def print_verdict(verdict: PreprocessingVerdict, names: Sequence[str], console: Console, quiet: bool) -> None:
    """Write the table and, last, one line that can be grepped; that alone if ``quiet``.

    Args:
        verdict: to be told.
        names: of the image files.
        console: to write to.
        quiet: the last line only.
    """
    if not quiet:
        for side, provenance in verdict.provenance.items():
            print_wrapped(provenance_line(side, provenance), console)
        if (shared := shared_code(verdict.provenance)) is not None:
            print_wrapped(shared.line(), console)
        console.print(_table(verdict))
        for image, why in list(verdict.refused.items())[:_MOST_LINES]:
            print_wrapped(f"  refused by both sides: {names[image]} ({why})", console)
        for note in verdict.notes:
            print_wrapped(f"note: {note}", console)
        for one in verdict.differences[:_MOST_LINES]:
            print_wrapped(f"  {line_of(one, names)}", console)
        if len(verdict.differences) > _MOST_LINES:
            print_wrapped(f"  and {len(verdict.differences) - _MOST_LINES} more; see --json", console)
    console.print(closing_line(verdict, names), markup=False, highlight=False, soft_wrap=True)


def _table(verdict: PreprocessingVerdict) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("transform", no_wrap=True, overflow="ellipsis", max_width=56)
    for title in ("runs", "equal", "first here"):
        table.add_column(title, justify="right", no_wrap=True)
    for step in verdict.steps:
        style = None if step.equal == step.images else "bold red"
        numbers = map(str, (step.images, step.equal, step.first))
        table.add_row(Text(f"{step.pipeline}: {step.transform}"), *numbers, style=style)
    return table


def line_of(one: StepDifference, names: Sequence[str]) -> str:
    """Say where an image's way through a pipeline parts first."""
    slot = f" leaves another `{one.slot}`" if one.slot else ""
    link = ": " if one.slot else " "
    return f"{names[one.image]}, {one.phase}: {one.transform}{slot}{link}{one.note}"


def closing_line(verdict: PreprocessingVerdict, names: Sequence[str]) -> str:
    """Return the verdict in one line."""
    remark = originals.remark(verdict.provenance[LEGACY])
    if verdict.outcome != MATCH:
        first = f" First at {line_of(verdict.first, names)}." if verdict.first is not None else ""
        return f"{verdict.outcome} {' '.join(verdict.reasons)}{first}{as_sentence(remark)}"
    refused = f", {len(verdict.refused)} of them refused by both sides" if verdict.refused else ""
    said = f"MATCH {counted(verdict.images, 'image')}{refused}: {counted(verdict.values, 'value')} of {_steps(verdict)} equal"
    return f"{said}, {remark}" if remark else said


def _steps(verdict: PreprocessingVerdict) -> str:
    return counted(len(verdict.steps), "transform")


def as_dict(verdict: PreprocessingVerdict, names: Sequence[str]) -> dict[str, Any]:
    """Return everything as plain data for JSON."""
    first = verdict.first
    return {
        "schema": SCHEMA,
        "verdict": verdict.outcome,
        "exit_code": verdict.exit_code,
        "summary": closing_line(verdict, names),
        "reasons": list(verdict.reasons),
        "notes": list(verdict.notes),
        "first": None if first is None else _told(first, names),
        "differences": [_told(one, names) for one in verdict.differences],
        "transforms": [asdict(step) for step in verdict.steps],
        "refused": {names[image]: why for image, why in verdict.refused.items()},
        "values": verdict.values,
        "images": list(names),
        "provenance": {side: without_files(told) for side, told in verdict.provenance.items()},
    }


def _told(one: StepDifference, names: Sequence[str]) -> dict[str, Any]:
    return {**asdict(one), "image": names[one.image]}
