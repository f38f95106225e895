"""The log of one training: every loss term and every AP as a curve over epochs or iterations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np

EPOCHS, ITERATIONS = "epochs", "iterations"
#: The learning rate, as both log it: of the first group of parameters.
RATE = "lr"
#: Digits behind the point up to which a log is taken to round: mmdet 2.x has 5, text logs 4, APs 3.
_MOST_DIGITS = 6
#: The coarsest unit in which any of these rounds a number of training, and an AP.
_COARSEST, _COARSEST_AP = 1e-4, 1e-3
_AP = re.compile(r"(?:.*/)?((?:\w+_)?mAP)")


class BadLogError(Exception):
    """A log that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Entry:
    """One line of a log.

    Attributes:
        training: or else validation.
        epoch: from 1 on; None where the log does not count epochs.
        iteration: from 1 on; of a validation that of the entry of training before it.
        within: iterations are counted from the start of the epoch, not of the training.
        values: every number of the line, by name.
    """

    training: bool
    epoch: int | None
    iteration: int
    within: bool
    values: dict[str, float]


@dataclass(frozen=True)
class Curve:
    """One logged number in the course of a training.

    Attributes:
        at: [n] increasing, epochs or iterations done when it was logged.
        values: [n].
        step: unit in which the log rounds its values, as all its terms, or APs, tell it; 0 if it has all digits.
    """

    at: np.ndarray
    values: np.ndarray
    step: float

    def __len__(self) -> int:
        return len(self.at)

    def until(self, end: float) -> Curve:
        """Leave out what was logged after ``end``."""
        early = self.at <= end * (1 + 1e-9)
        return replace(self, at=self.at[early], values=self.values[early])


@dataclass(frozen=True)
class RunLog:
    """The log of one training.

    Attributes:
        name: as it was given.
        files: that were read.
        unit: of ``at`` in all curves: ``epochs`` or ``iterations``.
        epoch_length: iterations of an epoch; None if not known.
        least_length: the largest iteration logged within an epoch; an epoch has at least so many. 0 in iterations.
        interval: iterations from one entry to the next, the largest usual one.
        terms: loss terms by name, their total included.
        aps: the AP of each task, such as ``bbox_mAP``, in [0, 1].
        rates: the learning rate; empty if it is not logged.
    """

    name: str
    files: tuple[Path, ...]
    unit: str
    epoch_length: int | None
    least_length: int
    interval: int
    terms: dict[str, Curve]
    aps: dict[str, Curve]
    rates: Curve

    @property
    def end(self) -> float:
        """Return where the last loss was logged."""
        return max(float(curve.at[-1]) for curve in self.terms.values())

    @property
    def usual_step(self) -> float:
        """Return how far apart two entries usually are, in the unit of the curves."""
        return self.interval / (self.epoch_length or self.least_length) if self.unit == EPOCHS else float(self.interval)

    @property
    def places(self) -> np.ndarray:
        """Return [n] where any loss term was logged."""
        return np.unique(np.concatenate([curve.at for curve in self.terms.values()]))

    def holes(self) -> list[tuple[float, float]]:
        """Return stretches without entries longer than two and a half usual ones, as of a log that was lost."""
        places = self.places
        steps = np.diff(places, prepend=0.0)
        rows = np.flatnonzero(steps > 2.5 * self.usual_step)
        return [(float(places[i] - steps[i]), float(places[i])) for i in rows]

    def lacking(self, term: str) -> np.ndarray:
        """Return [n] which of the places have no value of a loss term."""
        return ~np.isin(self.places, self.terms[term].at)

    def with_epochs_of(self, length: int) -> RunLog:
        """Take ``length`` for the iterations of an epoch, which the log counts within and does not tell."""
        share = self.least_length / length

        def moved(curve: Curve) -> Curve:
            before = np.ceil(curve.at) - 1  # epochs that were complete
            return replace(curve, at=before + (curve.at - before) * share)

        terms = {name: moved(curve) for name, curve in self.terms.items()}
        return replace(self, epoch_length=length, terms=terms, rates=moved(self.rates))

    def in_iterations(self) -> RunLog:
        """Count in iterations where epochs were counted.

        Raises:
            BadLogError: if it is not known how many iterations an epoch has.
        """
        if self.unit == ITERATIONS:
            return self
        if self.epoch_length is None:
            raise BadLogError(
                f"{self.name} counts epochs and the other log iterations; keep its text log beside it, which tells "
                "how many iterations an epoch has."
            )

        def scaled(curves: dict[str, Curve]) -> dict[str, Curve]:
            return {name: replace(curve, at=curve.at * self.epoch_length) for name, curve in curves.items()}

        rates = replace(self.rates, at=self.rates.at * self.epoch_length)
        return replace(self, unit=ITERATIONS, terms=scaled(self.terms), aps=scaled(self.aps), rates=rates)


def assembled(
    name: str, files: tuple[Path, ...], sessions: Sequence[Sequence[Entry]], epoch_length: int | None
) -> RunLog:
    """Put together what the starts of one training logged; a later one replaces an earlier from its first entry on.

    Args:
        name: of the log.
        files: it was read from.
        sessions: entries of each start, in the order of time; each has an entry of training.
        epoch_length: iterations of an epoch; None if no log tells.

    Raises:
        BadLogError: if entries of training hold no loss.
    """
    training = [entry for session in sessions for entry in session if entry.training]
    by_epoch = all(entry.epoch is not None for entry in training)
    placed = epoch_length is not None or all(entry.within for entry in training)
    unit = EPOCHS if by_epoch and placed else ITERATIONS
    least = max(_within(entry, epoch_length) for entry in training) if unit == EPOCHS else 0
    length = epoch_length or least

    def at(entry: Entry) -> float:
        if unit == ITERATIONS:
            return float(entry.iteration)
        if not entry.training:
            return float(entry.epoch) if entry.epoch is not None else _done(entry, length)
        return _done(entry, length)

    placed: list[tuple[float, Entry]] = []
    for session in sessions:
        first = min(at(entry) for entry in session if entry.training)
        placed = [(place, entry) for place, entry in placed if place < first]
        placed += [(at(entry), entry) for entry in session]
    terms = _curves(placed, True, lambda key: key if "loss" in key else None)
    if not terms:
        raise BadLogError(f"{name} has no loss in its entries of training; expected names that contain `loss`.")
    return RunLog(
        name=name,
        files=files,
        unit=unit,
        epoch_length=epoch_length,
        least_length=least,
        interval=_interval(training),
        terms=terms,
        aps=_curves(placed, False, _ap_name),
        rates=_curves(placed, True, lambda key: key if key == RATE else None).get(RATE, _curve([], [], 0.0)),
    )


def _within(entry: Entry, length: int | None) -> int:
    return entry.iteration if entry.within or length is None else entry.iteration - (entry.epoch - 1) * length


def _done(entry: Entry, length: int) -> float:
    """Return the epochs done at an entry."""
    return (entry.epoch - 1) + entry.iteration / length if entry.within else entry.iteration / length


def _interval(training: Sequence[Entry]) -> int:
    """Return the most frequent distance of entries in iterations."""
    iterations = np.array([entry.iteration for entry in training])
    steps = np.diff(iterations)
    forward = steps[steps > 0]
    if not len(forward):
        return int(iterations[0])
    values, counts = np.unique(forward, return_counts=True)
    return int(values[counts.argmax()])


def _ap_name(key: str) -> str | None:
    match = _AP.fullmatch(key)
    return match[1] if match else None


def _curves(
    entries: Sequence[tuple[float, Entry]], training: bool, name_of: Callable[[str], str | None]
) -> dict[str, Curve]:
    curves: dict[str, dict[float, float]] = {}
    for place, entry in entries:
        if entry.training == training:
            for key, value in entry.values.items():
                name = name_of(key)
                if name is not None:
                    curves.setdefault(name, {})[place] = value
    values = [value for points in curves.values() for value in points.values()]
    step = _step(values, _COARSEST if training else _COARSEST_AP)
    return {name: _curve(*zip(*sorted(points.items())), step) for name, points in sorted(curves.items())}


def _curve(at: Sequence[float], values: Sequence[float], step: float) -> Curve:
    return Curve(np.array(at, dtype=float), np.array(values, dtype=float), step)


def _step(values: Sequence[float], coarsest: float) -> float:
    """Return the unit in which a log rounded all of ``values``, told by their digits; 0 if it did not round them.

    Few values may all end on zeros, so it is never more than ``coarsest``.
    """
    digits = max((_decimals(value) for value in values if math.isfinite(value)), default=0)
    return min(10.0**-digits, coarsest) if digits <= _MOST_DIGITS else 0.0


def _decimals(value: float) -> int:
    return max(0, -Decimal(repr(value)).normalize().as_tuple().exponent)
