"""Tell of an error what a person needs first: one line, and in which module and phase of a run it was raised.

Imports the standard library only, so that an interpreter without torch can still report that.
"""

from __future__ import annotations

import os
import traceback
from typing import Dict

MODULE, PHASE = "module", "phase"
_NOTE = "_ddq_parity_"


class PlainError(Exception):
    """An error that a user can mend: its message, one line, tells all, and a traceback would say nothing more."""


class UnusableInputError(PlainError):
    """What a user named cannot be used: a code base, a config, an adapter. Nothing was computed with it."""


def note(error: BaseException, what: str, value: str) -> None:
    """Keep with an error the module or the phase that it passes through, if it has passed through none yet."""
    if not hasattr(error, _NOTE + what):
        setattr(error, _NOTE + what, value)


class ReportedError(Exception):
    """An error of a process that the worker has started, and that has reported it.

    Attributes:
        told: what :func:`report` returned there.
    """

    def __init__(self, told: Dict[str, str]) -> None:
        super().__init__(told["error"])
        self.told = told


def report(error: BaseException) -> Dict[str, str]:
    """Return ``error`` in one line, the ``place`` where it was raised, if that is known, and the ``traceback``."""
    if isinstance(error, ReportedError):
        return error.told
    if isinstance(error, PlainError):
        return dict(error=str(error), place=_place(error), traceback="")
    whole = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return dict(error=_one_line(error), place=_place(error), traceback=whole)


def _one_line(error: BaseException) -> str:
    """Return type and message; of several lines the first, and the next ones while a line ends in a colon."""
    told = type(error).__name__
    for line in filter(None, map(str.strip, str(error).splitlines())):
        told += (" " if told.endswith(":") else ": ") + line
        if not told.endswith(":"):
            break
    return told.rstrip(":")


def _place(error: BaseException) -> str:
    """Say in words where an error was raised, e.g. `` `head.norm` (the predict phase)``; empty outside of all phases.

    Of an error that was raised because of another one the first one's place counts.
    """
    notes = {MODULE: "", PHASE: ""}
    origin, chain = error, error  # type: BaseException, Optional[BaseException]
    while chain is not None:
        notes = {what: getattr(chain, _NOTE + what, value) for what, value in notes.items()}
        origin, chain = chain, chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    phase = notes[PHASE]
    if not phase:
        return ""
    place = "`{}`".format(notes[MODULE]) if notes[MODULE] else "the detector"
    if not notes[MODULE] and _is_in_backward(origin):
        place = "backward"
    return "{} ({})".format(place, phase if " " in phase else "the {} phase".format(phase))


def _is_in_backward(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(os.path.join("torch", "autograd", "") in frame.filename for frame in frames)
