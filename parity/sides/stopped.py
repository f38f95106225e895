"""What is left of a new side that crashed: what it recorded until then may tell where the error comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from legacy_adapters.launch import SideError, crash
from legacy_adapters.recording.trace_writer import INDEX_NAME
from legacy_adapters.training.phases import rank_of

from ..comparing.coverage import Coverage
from ..comparing.pairing import LEGACY, NEW, Pairing, Unpaired
from ..traces.kinds import Kind
from ..traces.trace import Recording, Trace


@dataclass(frozen=True)
class Stop:
    """Where and why a side stopped before its end.

    Attributes:
        side: ``legacy`` or ``new``.
        error: in one line.
        place: in words, e.g. `` `head.norm` (the predict phase)``; empty if not known.
        traceback: the last lines of it.
        hint: what the family knows of such an error; empty if nothing.
    """

    side: str
    error: str
    place: str
    traceback: str
    hint: str = ""

    @classmethod
    def of(cls, recording: Recording, side: str) -> Stop | None:
        """Return what a recording tells; None if the side came to its end."""
        told = recording.provenance.get("stopped")
        return None if told is None else cls(side, told["error"], told["place"], told["traceback"])

    @property
    def as_error(self) -> SideError:
        """The error by which a run ends that the recording explains nothing of."""
        error = f"{self.error.rstrip('.')}. {self.hint}" if self.hint else self.error
        return crash(self.side, {"error": error, "place": self.place, "traceback": self.traceback})

    def __str__(self) -> str:
        place = f" in {self.place}" if self.place else ""
        return f"the {self.side} side stopped{place}: {self.error}"


def recorded_by(run: Callable[[], None], folder: Path) -> Trace:
    """Run a side and return its trace ``folder``; if it crashed, the trace of what it had recorded until then.

    Raises:
        SideError: if it crashed and left no trace.
    """
    try:
        run()
    except SideError:
        if not (folder / INDEX_NAME).is_file():
            raise
        trace = Trace.load(folder)
        if Stop.of(trace, NEW) is None:
            raise
        return trace
    return Trace.load(folder)


def judged_part(new: Trace, reference: Trace | None) -> tuple[Trace, Stop | None]:
    """Return the part of a new side's trace that can be judged, and why it is not the whole.

    Args:
        new: in the precision of the run.
        reference: in float64, under a derived tolerance; what it had no time to record cannot be judged.
    """
    stop = Stop.of(new, NEW)
    if reference is None or Stop.of(reference, NEW) is None:
        return new, stop
    # a model is initialised once, whatever precision it then runs in
    records = tuple(record for record in new.records if record.kind == Kind.INIT or record.key in reference.by_key)
    return replace(new, records=records), stop or Stop.of(reference, NEW)


def until_stop(pairing: Pairing, new: Trace) -> Pairing:
    """Leave out what of the legacy side has no twin because the new side had no time for it.

    Counted are phases that the new side ended, and values of which it recorded other parts: all are recorded at once,
    but for the state of a random generator at a phase's end.

    Args:
        pairing: of all records of both sides.
        new: the side that stopped.
    """
    phases = dict.fromkeys(record.phase for record in new.records)
    ended = set(phases) - set({rank_of(phase): phase for phase in phases}.values())  # without the last of each rank
    begun = {pair.legacy.key[:4] for pair in pairing.pairs if pair.legacy.kind != Kind.RANDOM}

    def in_time(item: Unpaired) -> bool:
        return item.side == NEW or item.record.phase in ended or item.record.key[:4] in begun

    return replace(pairing, unpaired=tuple(filter(in_time, pairing.unpaired)))


def without_rest(coverage: Coverage) -> Coverage:
    """Leave out of a coverage what is only missing because a side stopped."""
    nothing: dict[str, tuple[str, ...]] = {LEGACY: (), NEW: ()}
    return replace(coverage, lone_calls=(), never_executed=nothing, gradient_only_on=nothing)
