"""How far autocast moves the new side from itself in float32: what is told where the legacy code cannot run under it.

These are figures and no verdict: nothing is compared with the legacy code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from legacy_adapters.recording.trace_writer import Record

from ..traces.kinds import COMPUTED
from ..traces.trace import Trace
from .evidence import distance, norms, whole


@dataclass(frozen=True)
class Drift:
    """How far autocast moves one result of the new side.

    Attributes:
        record: in float32.
        share: root mean square of the difference, as a share of that of the result.
    """

    record: Record
    share: float


@dataclass(frozen=True)
class AutocastFailure:
    """A legacy side that stops under autocast and comes to its end without.

    Attributes:
        message: that, in one line.
        compared: checks of the task that came to their end before it stopped.
        drifts: what autocast changes on the new side in the other checks; none if it stops, too.
    """

    message: str
    compared: tuple[str, ...]
    drifts: tuple[Drift, ...]


def drifts(plain: Trace, ran: Trace) -> Iterator[Drift]:
    """Measure what modules gave, loss terms and gradients of parameters, where they are not all zero.

    Args:
        plain: in float32, under the decisions and draws of ``ran``.
        ran: under autocast.
    """
    for record in plain.records:
        twin = ran.by_key.get(record.key)
        if record.kind in COMPUTED and record.is_float and twin is not None and twin.shape == record.shape:
            size = norms(whole(plain, record)).rms
            if size:
                yield Drift(record, distance(whole(plain, record), whole(ran, twin)).rms / size)
