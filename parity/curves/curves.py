"""Compare two trainings by their logs: loss terms and APs, against the spread of repeated runs.

Judged are numbers of one run each:

* the *level* of every loss term, its mean over the whole training;
* its means over :data:`STRETCHES` stretches of the training, so that a difference of one phase is not averaged away;
* the AP of every evaluation.

Each of B must lie in the prediction interval (:mod:`parity.curves.noise`) of A and the repeated runs. Of the chance of a false
alarm APs have a half, levels and stretches a quarter each; without APs, levels and stretches have a half each.

Intervals that are too wide find nothing, so a match asks for more: a level, or an AP, that differs by the share
``resolve`` must lie outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from legacy_adapters.ground.words import counted

from ..verdict.outcome import EXIT_CODES, INCOMPARABLE, MATCH, MISMATCH
from .alignment import aligned, check_different, common_terms, ended, hole_reasons, rate_notes, same_numbers, without
from .noise import Interval, prediction_interval
from .runlog import EPOCHS, Curve, RunLog

STRETCHES = 4
LEVEL, STRETCH, AP = "level", "stretch", "ap"
_SHARES = {LEVEL: 0.25, STRETCH: 0.25, AP: 0.5}


@dataclass(frozen=True)
class Quantity:
    """One number of every run.

    Attributes:
        kind: ``level``, ``stretch`` or ``ap``.
        name: loss term, or task of the AP such as ``bbox_mAP``.
        start: where it begins, in epochs or iterations.
        end: where it ends; of an AP both are where it was measured.
        a: of A.
        b: of B.
        band: of the repeated runs.
        step: unit in which the logs rounded it.
        interval: where B may lie; None without repeated runs.
    """

    kind: str
    name: str
    start: float
    end: float
    a: float
    b: float
    band: tuple[float, ...]
    step: float
    interval: Interval | None = None

    @property
    def reference(self) -> float:
        """Return the mean of A and the repeated runs."""
        return float(np.mean([self.a, *self.band]))

    @property
    def accepted(self) -> bool | None:
        """Tell whether B may differ so by its seed; None if nothing tells how far a seed goes."""
        if self.interval is None:
            return None
        return self.interval.holds(self.b)


@dataclass(frozen=True)
class CurvesVerdict:
    """The outcome.

    Attributes:
        outcome: ``MATCH``, ``MISMATCH`` or ``INCOMPARABLE``.
        reasons: why it is not a match, one sentence each.
        notes: what else is worth knowing, one sentence each.
        quantities: everything that was compared.
        a: log of A, aligned with the others.
        b: of B.
        band: of the repeated runs.
        end: where the comparison ends.
        level: chance of a false alarm, at most.
        resolve: share of a level or AP that had to be resolved.
        identical: A and B logged the same numbers.
    """

    outcome: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    a: RunLog
    b: RunLog
    band: tuple[RunLog, ...]
    end: float
    level: float
    resolve: float
    identical: bool

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    @property
    def rejected(self) -> tuple[Quantity, ...]:
        """Return what lies outside its interval, in the order of the training."""
        outside = (quantity for quantity in self.quantities if quantity.accepted is False)
        return tuple(sorted(outside, key=lambda quantity: (quantity.end, quantity.start)))


def compare(
    a: RunLog,
    b: RunLog,
    band: Sequence[RunLog] = (),
    *,
    level: float = 0.05,
    resolve: float = 0.1,
    until: float | None = None,
    excluded: Sequence[str] = (),
) -> CurvesVerdict:
    """Compare the log of B with that of A.

    Args:
        a: log of the training that is the reference.
        b: log of the training to judge.
        band: logs of repetitions of A's training with other seeds.
        level: chance that a training which differs from A's by its seed only is called a mismatch, at most.
        resolve: share by which a level, or an AP, may differ unseen at most where there is a match.
        until: epochs (iterations, if that is what the logs count) to compare; None for all.
        excluded: loss terms that are left out.

    Raises:
        BadLogError: if the logs cannot be brought to one scale, if a repeated run is the twin of A, of B or of another,
            or a term to leave out is in no log.
    """
    identical = same_numbers(a, b)
    check_different(a, b, band)
    logs, notes = aligned([a, b, *band])
    whole = without(logs, excluded)
    logs, end, reasons = ended(whole, until)
    notes += [f"Loss term `{name}` is left out as asked for." for name in excluded]
    terms, missing = common_terms(logs)
    quantities = _loss_quantities(logs, terms, end)
    aps, more, left_out = _ap_quantities(logs)
    quantities += aps
    quantities = _with_intervals(quantities, level) if band else quantities
    holes = hole_reasons(whole, end)
    reasons = [*holes, *missing, *reasons, *more]
    notes += [*left_out, *rate_notes(logs[0], logs[1])]
    outcome, reasons = _judge(quantities, reasons, bool(band), identical, resolve, whole=not holes)
    return CurvesVerdict(
        outcome, tuple(reasons), tuple(notes), tuple(quantities), logs[0], logs[1], tuple(logs[2:]), end, level,
        resolve, identical,
    )  # fmt: skip


def _judge(
    quantities: Sequence[Quantity],
    reasons: list[str],
    has_band: bool,
    identical: bool,
    resolve: float,
    whole: bool,
) -> tuple[str, list[str]]:
    """Return the outcome and why; of logs that are not ``whole`` nothing is compared but whether all is finite."""
    if identical and not reasons:
        return MATCH, []
    diverged = next((q for q in quantities if math.isfinite(q.reference) and not math.isfinite(q.b)), None)
    if diverged is not None:
        return MISMATCH, [f"`{diverged.name}` is {diverged.b:g} in B and {diverged.a:.4g} in A.", *reasons]
    if not whole:
        return INCOMPARABLE, reasons
    if any(quantity.accepted is False for quantity in quantities):
        return MISMATCH, [_count_sentence(quantities), *reasons]
    bad = next((q for q in quantities if not math.isfinite(q.reference)), None)
    if bad is not None:
        reasons = [*reasons, f"`{bad.name}` is not finite in A or a repeated run, so there is nothing to compare with."]
    if not has_band and not identical:
        lone = "Without repeated runs, noise cannot be told from a difference; pass logs of repetitions with --band."
        reasons = [*reasons, lone]
    elif not reasons:
        reasons = _unresolved(quantities, resolve)
    return (INCOMPARABLE, reasons) if reasons else (MATCH, [])


def _count_sentence(quantities: Sequence[Quantity]) -> str:
    parts = []
    for what, (outside, total) in counts(quantities).items():
        parts += [f"{outside} of {total} {what}"] * bool(outside)
    return f"Outside the noise of repeated runs: {' and '.join(parts)}."


def counts(quantities: Sequence[Quantity]) -> dict[str, tuple[int, int]]:
    """Count loss terms and APs: those of which anything was rejected, and all."""
    groups = {"loss terms": ({}, (LEVEL, STRETCH)), "APs": ({}, (AP,))}
    for rejected, kinds in groups.values():
        for quantity in quantities:
            if quantity.kind in kinds:
                key = (quantity.name, quantity.start if quantity.kind == AP else None)
                rejected[key] = rejected.get(key, False) or quantity.accepted is False
    return {what: (sum(rejected.values()), len(rejected)) for what, (rejected, _) in groups.items()}


def _unresolved(quantities: Sequence[Quantity], resolve: float) -> list[str]:
    """Tell what lies in an interval too wide to mean anything."""
    best: dict[str, float] = {}
    for quantity in quantities:
        if quantity.kind == AP:
            best[quantity.name] = max(best.get(quantity.name, 0.0), abs(quantity.reference))
    wide = []
    for quantity in quantities:
        if quantity.interval is None or quantity.kind == STRETCH:
            continue
        base = best[quantity.name] if quantity.kind == AP else abs(quantity.reference)
        if quantity.interval.half > resolve * base:
            wide.append((quantity.interval.half / base if base else math.inf, quantity.name))
    if not wide:
        return []
    share, name = max(wide)
    return [
        f"The noise of these runs hides differences of more than {resolve:.0%} in {counted(len(wide), 'number')}, the "
        f"most in `{name}` ({share:.0%}); more repeated runs make it narrower."
    ]


def _loss_quantities(logs: Sequence[RunLog], terms: Sequence[str], end: float) -> list[Quantity]:
    edges = _edges(logs)
    parts = [(LEVEL, 0.0, edges[-1]), *((STRETCH, *pair) for pair in zip(edges, edges[1:]))]
    quantities = []
    for name, (kind, start, stop) in product(terms, parts):
        means = [_mean(log.terms[name], start, stop) for log in logs]
        if None not in means:  # else a log lacks that part
            quantities.append(_quantity(kind, name, start, stop, means, [log.terms[name].step for log in logs]))
    return quantities


def _ap_quantities(logs: Sequence[RunLog]) -> tuple[list[Quantity], list[str], list[str]]:
    """Return the APs that all logs have, a sentence for each that lacks A's last one, and what else is left out."""
    quantities, reasons, notes = [], [], []
    for task in dict.fromkeys(name for log in logs for name in log.aps):
        curves = [log.aps.get(task) for log in logs]
        lacking = [log.name for log, curve in zip(logs, curves) if curve is None or not len(curve)]
        if lacking:
            reasons.append(f"{lacking[0]} has no `{task}` up to there, another log has.")
            continue
        slack = _slack(logs)
        reasons += _last_ap_reasons(task, logs, curves, slack)
        notes += _left_out_notes(task, logs[0].unit, curves, slack)
        steps = [curve.step for curve in curves]
        for at, rows in _common_places(curves, slack):
            values = [float(curve.values[row]) for curve, row in zip(curves, rows)]
            quantities.append(_quantity(AP, task, at, at, values, steps))
    return quantities, reasons, notes


def _last_ap_reasons(task: str, logs: Sequence[RunLog], curves: Sequence[Curve], slack: float) -> list[str]:
    last = float(curves[0].at[-1])
    one = logs[0].unit.removesuffix("s")
    return [
        f"{log.name} has no `{task}` after {one} {last:.6g}, the last of A; a smaller --until leaves it out."
        for log, curve in zip(logs, curves)
        if _row(curve, last, slack) is None
    ]


def _left_out_notes(task: str, unit: str, curves: Sequence[Curve], slack: float) -> list[str]:
    everywhere = sorted({float(at) for curve in curves for at in curve.at})
    alone = [at for at in everywhere if any(_row(curve, at, slack) is None for curve in curves)]
    if not alone:
        return []
    places = ", ".join(f"{at:.6g}" for at in alone[:8]) + (" ..." if len(alone) > 8 else "")
    units = unit if len(alone) > 1 else unit.removesuffix("s")
    return [f"`{task}` is not compared after {units} {places}, where not every log has one."]


def _quantity(
    kind: str, name: str, start: float, end: float, values: Sequence[float], steps: Sequence[float]
) -> Quantity:
    a, b, *band = values
    return Quantity(kind, name, start, end, a, b, tuple(band), max(steps))


def _edges(logs: Sequence[RunLog]) -> list[float]:
    """Divide the training into stretches of about equal length, at entries of the log that has the fewest."""
    coarsest = min(logs, key=lambda log: len(_longest(log)))
    at = _longest(coarsest).at
    groups = np.array_split(at, min(STRETCHES, len(at)))
    return [0.0, *(float(group[-1]) for group in groups)]


def _longest(log: RunLog) -> Curve:
    return max(log.terms.values(), key=len)


def _mean(curve: Curve, start: float, end: float) -> float | None:
    """Return the mean over a stretch; None if nothing of it is logged.

    A logged value stands for what lies between it and the one before.
    """
    before = np.concatenate([[0.0], curve.at[:-1]])
    weight = np.clip(np.minimum(curve.at, end) - np.maximum(before, start), 0.0, None)
    if weight.sum() == 0:
        return None
    used = weight > 0
    return float(np.average(curve.values[used], weights=weight[used]))


def _slack(logs: Sequence[RunLog]) -> float:
    """Return how far apart the same evaluation may lie in two logs.

    Logs that count iterations tell of an evaluation by the entry of training before it, so these may lie apart by the
    distance of entries.
    """
    return 1e-6 if logs[0].unit == EPOCHS else max(log.interval for log in logs)


def _row(curve: Curve, at: float, slack: float) -> int | None:
    """Return the row of the AP at a place; None if there is none."""
    row = int(np.abs(curve.at - at).argmin())
    return row if abs(curve.at[row] - at) <= slack else None


def _common_places(curves: Sequence[Curve], slack: float) -> list[tuple[float, list[int]]]:
    """Return where all logs have an AP, with the row in each."""
    places = []
    for at in curves[0].at:
        rows = [_row(curve, at, slack) for curve in curves]
        if None not in rows:
            places.append((float(at), rows))
    return places


def _with_intervals(quantities: Sequence[Quantity], level: float) -> list[Quantity]:
    of_kind = {kind: sum(quantity.kind == kind for quantity in quantities) for kind in _SHARES}
    total = sum(share for kind, share in _SHARES.items() if of_kind[kind])
    return [
        replace(
            quantity,
            interval=prediction_interval(
                [quantity.a, *quantity.band],
                level * _SHARES[quantity.kind] / total / of_kind[quantity.kind],
                quantity.step,
            ),
        )
        if math.isfinite(quantity.reference)
        else quantity
        for quantity in quantities
    ]
