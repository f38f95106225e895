"""Names of the phases of a run that have coordinates: a step of a training, a rank of those that train together.

Imports the standard library only.
"""

from __future__ import annotations

import re
from typing import Optional

_STEP = re.compile(r"step (\d+)(?: on rank \d+)?")
_RANK = re.compile(r".+ on rank (\d+)")


def phase_of(step: int, rank: Optional[int] = None) -> str:
    """Name the phase of a step; the first is step 1."""
    return on_rank("step {}".format(step), rank)


def on_rank(phase: str, rank: Optional[int]) -> str:
    """Name a phase of a rank, from 0 on; None where one process runs alone."""
    return phase if rank is None else "{} on rank {}".format(phase, rank)


def step_of(phase: str) -> Optional[int]:
    """Return the step that ``phase`` names, None for other phases."""
    found = _STEP.fullmatch(phase)
    return int(found.group(1)) if found else None


def rank_of(phase: str) -> Optional[int]:
    """Return the rank that ``phase`` names, None where one process ran alone."""
    found = _RANK.fullmatch(phase)
    return int(found.group(1)) if found else None
