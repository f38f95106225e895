"""What a planted fault is, what a harmless rewrite is, and where they can be planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Places to plant a fault: the new model's code, its weights file, a recorded trace of it, the training steps.
MODEL, WEIGHTS, TRACE, TRAINING = "model", "weights", "trace", "training"
#: More places: the classes, before the model is built; the files of the package; the weights that both sides are given.
CODE, PACKAGE, CHECKPOINT = "code", "package", "checkpoint"
PLACES = (MODEL, WEIGHTS, TRACE, TRAINING, CODE, PACKAGE, CHECKPOINT)
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
        where: what must be named as the first place where the sides part: module, parameter or loss term. Of what is
            refused or compared under other conditions: what the message must name.
        apply: plants it. Takes what the place gives: the built model; the dict of weights, to be changed; the
            :class:`~tests.faults.edits.Edit` of a trace; the training that the adapter makes; None before the model
            is built; the folder of a copy of the package; the dict of weights of both sides.
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


@dataclass(frozen=True)
class Rewrite:
    """A change of the code that changes nothing it computes: an alarm about it is a false one.

    Attributes:
        name: of this rewrite; unique, among the faults as well.
        kind: what sort of change it is.
        where: the module or function that is rewritten.
        apply: makes the change, as that of a :class:`Fault` does.
        keeps_bits: it computes the very same bits; if not, it rounds otherwise, so that it need match under derived
            tolerance only.
        place: where it is made: the model, the classes before it is built, the training.
        setting: name of the setting that runs the code.
    """

    name: str
    kind: str
    where: str
    apply: Callable[[Any], None]
    keeps_bits: bool = True
    place: str = MODEL
    setting: str = "plain"
