"""Words of messages."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """Write a number with its noun: `1 image`, `2 images`, `2 classes`."""
    plural = "es" if what.endswith("s") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"
