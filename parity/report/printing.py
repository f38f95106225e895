"""How reports write to a terminal, and to JSON."""

from __future__ import annotations

import math
import textwrap

from rich.console import Console


def print_wrapped(line: str, console: Console) -> None:
    """Print a line; where it goes on in the next, that is set in four more columns."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    for part in textwrap.wrap(line, console.width, subsequent_indent=indent, break_on_hyphens=False):
        console.print(part, markup=False, highlight=False, soft_wrap=True)


def finite(value: float) -> float | None:
    """Return what JSON has a number for."""
    return value if math.isfinite(value) else None
