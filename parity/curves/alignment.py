"""Bring the logs of several trainings to one scale, one end and the same loss terms; tell what they lack for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from legacy_adapters.ground.words import counted

from .runlog import ITERATIONS, BadLogError, Curve, RunLog

#: A term may be absent from so large a share of the entries of its log, and from so many in a row, not the last.
_MOST_LACKING, _MOST_IN_A_ROW = 0.05, 2


def aligned(logs: Sequence[RunLog]) -> tuple[list[RunLog], list[str]]:
    """Bring logs to one scale: epochs where all count them, else iterations.

    Returns:
        The logs, and what is worth knowing about it.

    Raises:
        BadLogError: if one counts epochs of unknown length and another iterations.
    """
    if any(log.unit == ITERATIONS for log in logs):
        return [log.in_iterations() for log in logs], []
    known = [log.epoch_length for log in logs if log.epoch_length is not None]
    likely = known[0] if known else max(log.least_length for log in logs)

    def fits(log: RunLog) -> bool:
        return log.epoch_length is None and log.least_length <= likely < log.least_length + 2 * log.interval

    logs = [log.with_epochs_of(likely) if fits(log) else log for log in logs]
    lengths = {log.epoch_length or log.least_length for log in logs}
    if len(lengths) == 1:
        return logs, []
    lengths = ", ".join(f"{log.epoch_length or log.least_length} in {log.name}" for log in logs)
    return logs, [f"Epochs have different numbers of iterations ({lengths}); the logs are aligned by epochs."]


def ended(logs: Sequence[RunLog], until: float | None) -> tuple[list[RunLog], float, list[str]]:
    """Cut logs where the shortest ends, or at ``until``; tell if one is shorter than the others without being asked.

    Raises:
        BadLogError: if ``until`` is behind the end of all logs, or a log has nothing before the end.
    """
    shortest, longest = min(logs, key=lambda log: log.end), max(logs, key=lambda log: log.end)
    slack = max(log.usual_step for log in logs)
    if until is not None and until > longest.end + slack:
        raise BadLogError(f"--until {until:g} is beyond the end of all logs; the longest ends at {longest.end:.4g}.")
    end = shortest.end if until is None else min(until, shortest.end)
    late = next((log for log in logs if log.places[0] > end * (1 + 1e-9)), None)
    if late is not None:
        raise BadLogError(
            f"{late.name} begins at {late.places[0]:.4g} {late.unit}, and what is compared ends at {end:.4g}; give "
            "logs of the same part of the training, or a larger --until."
        )
    reasons = []
    if (longest.end if until is None else min(until, longest.end)) > end + slack:
        unit = shortest.unit
        reasons = [
            f"{shortest.name} ends after {end:.4g} {unit}, {longest.name} after {longest.end:.4g}; pass --until "
            f"{end:.4g} to compare that much only."
        ]
    # an evaluation follows the last entry of its epoch; one that was asked to be left out stays out
    last = end + slack if until is None else max(end, min(until, end + slack))
    cut = [
        replace(
            log,
            terms={name: early for name, curve in log.terms.items() if len(early := curve.until(end))},
            aps={name: curve.until(last) for name, curve in log.aps.items()},
        )
        for log in logs
    ]
    return cut, end, reasons


def without(logs: list[RunLog], excluded: Sequence[str]) -> list[RunLog]:
    """Leave loss terms out.

    Raises:
        BadLogError: if no log has one of them, or a log has no others.
    """
    for name in excluded:
        if not any(name in log.terms for log in logs):
            raise BadLogError(f"No log has a loss term `{name}` to leave out; there are {', '.join(logs[0].terms)}.")
    cut = [
        replace(log, terms={name: curve for name, curve in log.terms.items() if name not in excluded}) for log in logs
    ]
    empty = next((log.name for log in cut if not log.terms), None)
    if empty is not None:
        raise BadLogError(f"{empty} has no loss term left to compare; leave out fewer.")
    return cut


def common_terms(logs: Sequence[RunLog]) -> tuple[list[str], list[str]]:
    """Return the terms that all logs have throughout, and sentences for each log that lacks some, or parts of some."""
    everything = list(dict.fromkeys(name for log in logs for name in log.terms))
    common = [name for name in everything if all(name in log.terms for log in logs)]
    reasons = []
    for log in logs:
        lacking = [name for name in everything if name not in log.terms]
        if lacking:
            named = ", ".join(f"`{name}`" for name in lacking[:5]) + (" ..." if len(lacking) > 5 else "")
            reasons.append(
                f"{log.name} lacks {counted(len(lacking), 'loss term')} that another log has: {named}; rename with "
                "--rename or leave out with --exclude."
            )
    if not common:
        reasons.append("The logs have no loss term in common.")
    whole, partial = _whole_terms(logs, common)
    return whole, [*reasons, *partial]


def _whole_terms(logs: Sequence[RunLog], terms: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the terms that stand in the entries of all logs, and a sentence for each log that has some in part only.

    A mean over what is left of a term is one of another part of the training, and of no use.
    """
    whole, reasons = list(terms), []
    for log in logs:
        partial = [name for name in terms if _in_part(log.lacking(name))]
        whole = [name for name in whole if name not in partial]
        if partial:
            named = ", ".join(_lack(log, name) for name in partial[:5]) + (" ..." if len(partial) > 5 else "")
            reasons.append(f"{log.name} lacks {named}; leave out with --exclude what is not to be compared.")
    return whole, reasons


def _in_part(lacking: np.ndarray) -> bool:
    in_a_row = np.diff(np.flatnonzero(~lacking), prepend=-1, append=len(lacking)) - 1
    return bool(len(lacking)) and bool(lacking[-1] or lacking.mean() > _MOST_LACKING or in_a_row.max() > _MOST_IN_A_ROW)


def _lack(log: RunLog, name: str) -> str:
    """Tell where a term is missing, such as ``32 of 64 entries (from 6 epochs on)``."""
    lacking = log.lacking(name)
    rows = np.flatnonzero(lacking)
    first = f"{log.places[rows[0]]:.4g} {log.unit}"
    where = f"from {first} on" if lacking[rows[0] :].all() else f"first at {first}"
    return f"`{name}` in {len(rows)} of {counted(len(lacking), 'entry', 'entries')} ({where})"


def hole_reasons(logs: Sequence[RunLog], end: float) -> list[str]:
    """Return a sentence for every log that lacks a part of the training, naming the first, and what to do about it.

    Args:
        logs: not cut at the end of what is compared, as a part that is lost may reach beyond it.
        end: of what is compared.
    """
    first = ((log, next((hole for hole in log.holes() if hole[0] < end * (1 - 1e-9)), None)) for log in logs)
    return [_hole_reason(log, *hole) for log, hole in first if hole is not None]


def _hole_reason(log: RunLog, start: float, end: float) -> str:
    unit = log.unit if end != 1 else log.unit.removesuffix("s")
    if start == 0:
        return (
            f"{log.name} begins at {end:.4g} {unit}, as the log of a resumed training does; give a work dir that holds "
            "the earlier logs, too."
        )
    return (
        f"{log.name} has no entries from {start:.4g} to {end:.4g} {unit}; give a work dir that holds the log of that "
        "part, too."
    )


def rate_notes(a: RunLog, b: RunLog) -> list[str]:
    """Tell where the learning rates part, in entries that both logs have; mmdet 2.x rounds them to 1e-5."""
    at, one, two = np.intersect1d(np.round(a.rates.at, 9), np.round(b.rates.at, 9), return_indices=True)
    rates = a.rates.values[one], b.rates.values[two]
    differing = np.flatnonzero(np.abs(rates[0] - rates[1]) > np.maximum(1e-5, 1e-3 * np.abs(rates[0])))
    if not len(differing):
        return []
    first = int(differing[0])
    return [
        f"The learning rate differs from {at[first]:.4g} {a.unit} on: {rates[0][first]:.4g} in A, "
        f"{rates[1][first]:.4g} in B."
    ]


def check_different(a: RunLog, b: RunLog, band: Sequence[RunLog]) -> None:
    """Refuse logs that are not those of different trainings.

    Raises:
        BadLogError: if A and B are one file, or a repeated run is B or holds A's numbers or another's.
    """
    seen = [a]
    if _same_file(a, b):
        raise BadLogError(f"{a.name} and {b.name} are the same log; give those of two trainings.")
    for log in band:
        twin = next((other for other in seen if same_numbers(other, log)), None)
        if twin is not None:
            raise BadLogError(
                f"{log.name} holds the numbers of {twin.name}, so it says nothing about noise; repeated runs "
                "need seeds of their own."
            )
        if _same_file(log, b) or same_numbers(log, b):
            raise BadLogError(f"{log.name} is B, which cannot judge itself; --band takes other runs of A's code.")
        seen.append(log)


def _same_file(one: RunLog, two: RunLog) -> bool:
    return bool({file.resolve() for file in one.files} & {file.resolve() for file in two.files})


def same_numbers(one: RunLog, two: RunLog) -> bool:
    """Tell whether two logs hold the same losses and APs in the same places."""

    def same(curves: dict[str, Curve], others: dict[str, Curve]) -> bool:
        return curves.keys() == others.keys() and all(
            np.array_equal(curve.values, others[name].values, equal_nan=True)
            and np.array_equal(curve.at, others[name].at)
            for name, curve in curves.items()
        )

    return one.unit == two.unit and same(one.terms, two.terms) and same(one.aps, two.aps)
