"""What a planted fault is, and where faults can be planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Places to plant a fault: the new model's code, its weights file, a recorded trace of it, the training steps.
MODEL, WEIGHTS, TRACE, TRAINING = "model", "weights", "trace", "training"
#: What a fault must end in: a mismatch, not comparable, or refused as bad input.
MISMATCH, INCOMPARABLE, REFUSED = "MISMATCH", "INCOMPARABLE", "REFUSED"
#: Environment variable that tells ``adapter.py`` which fault to plant.
VARIABLE = "DDQ_FAULT"
#: How the detector's own code is named.
DETECTOR = "the detector"


@dataclass(frozen=True)
class Fault:
    """An error that is planted on purpose.

    Attributes:
        name: of this fault; unique.
        kind: what sort of error it is.
        where: what must be named as the first place where the sides part: module, parameter or loss term. Of a trace
            that is refused or compared under other conditions: what the message must name.
        apply: plants it. Takes what the place gives: the built model; the dict of weights, to be changed; the
            :class:`~tests.faults.edits.Edit` of a trace; the training that the adapter makes.
        place: where it is planted.
        says: what the sentence that names the place must hold besides, e.g. the tap.
        outcome: what it must end in.
        setting: name of the setting that shows it (:mod:`tests.faults.ground`).
    """

    name: str
    kind: str
    where: str
    apply: Callable[[Any], None]
    place: str = MODEL
    says: str = ""
    outcome: str = MISMATCH
    setting: str = "plain"
