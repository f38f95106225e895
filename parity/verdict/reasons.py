"""Say in sentences why two recordings cannot be compared, do not match, or prove nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from legacy_adapters.ground.words import counted
from legacy_adapters.recording import scripts
from legacy_adapters.recording.trace_writer import Record
from legacy_adapters.tasks.initialising import INIT
from legacy_adapters.training.phases import phase_of

from ..comparing.compare import EXACT, Comparison, Tolerance
from ..comparing.coverage import Coverage
from ..comparing.derived import Finding, too_loose
from ..comparing.pairing import LEGACY, NEW, Unpaired
from ..traces.kinds import COMPUTED, Kind
from ..traces.trace import Recording
from .case import Case
from .outcome import CONDITIONS
from .sentences import DETECTOR, quoted

MAX_EXCLUDED_SHARE = 0.02

#: Phase and kind of the records without which a check has not taken place.
EVIDENCE_OF_CHECKS = {
    "forward": ("predict", Kind.MODULE_OUT), "loss": ("train", Kind.LOSS), "grad": ("train", Kind.GRAD),
    "init": (INIT, Kind.INIT), scripts.CALL: (scripts.PHASE, Kind.MODULE_OUT), scripts.BACKWARD: (scripts.PHASE, Kind.LOSS),
}  # fmt: skip
#: Kinds that every step of a training must have left; an optimizer may be without state.
_STEP_EVIDENCE = (Kind.LOSS, Kind.GRAD, Kind.SETTING, Kind.STATE)
_MAY_BE_ABSENT = ("gpu", "gradient_flow", "resume_at", "ranks", "amp")
_ALWAYS_EQUAL = ("family", "variant", "seed", "checks", "dtype", "amp", "gradient_flow")
#: With check train.
_TRAINING_EQUAL = ("steps", "clip_order", "epoch_length", "resume_at", "ranks")


def difference_reasons(case: Case) -> tuple[str, ...]:
    """Say how many records differ, how many have no twin, and why a side stopped."""
    lost, rejected = len(case.coverage.unaccounted), case.rejected
    lone = f" {lost} {_have(lost)} no twin." if lost else ""
    differ = f"{rejected} of {counted(len(case.comparisons), 'record')} differ{'s' * (rejected == 1)}.{lone}"
    return differ, *case.stopped


def condition_reasons(legacy: Recording, new: Recording, tolerance: Tolerance) -> tuple[str, ...]:
    names = _ALWAYS_EQUAL + (CONDITIONS if tolerance.name == EXACT else ())
    if "train" in (legacy.provenance.get("checks") or ()):
        names += _TRAINING_EQUAL
    reasons = []
    for name in names:
        one, two = legacy.provenance.get(name), new.provenance.get(name)
        if two is None and new.provenance.get("stopped"):
            continue  # of a training that did not begin
        if one != two:
            reasons.append(f"{name} is {one} on the legacy side and {two} on the new one; record both alike.")
        elif one is None and name not in _MAY_BE_ABSENT:
            reasons.append(f"{name} is recorded on neither side; record both again.")
    return tuple(reasons)


def lone_reasons(coverage: Coverage) -> Iterator[str]:
    """Say which records without a twin a wrong count may be about."""
    for item in coverage.explained_records[:1]:
        record = item.record
        more = f" and {len(coverage.explained_records) - 1} more" if len(coverage.explained_records) > 1 else ""
        yield f"Without a twin is {_named(record)} on the {item.side} side{more}."


def _named(record: Record) -> str:
    """Name a record in a sentence."""
    slot = f", `{record.slot}`" if record.slot else ""
    return f"{record.kind} {quoted(record.name) if record.name else f'of {DETECTOR}'}{slot}"


def loose_reasons(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Say which derived bounds are too wide to show anything."""
    phases: dict[str, list[Finding]] = {}
    for comparison in comparisons:
        if comparison.finding is not None:
            phases.setdefault(comparison.pair.new.phase, []).append(comparison.finding)
    loose = too_loose(phases)
    if loose:
        wide = {id(finding) for finding in loose}
        first = next(c for c in comparisons if id(c.finding) in wide)
        finding, record = first.finding, first.pair.new
        yield (
            f"The measured rounding of {counted(len(loose), 'record')} is too large to show an error, the first is "
            f"{_named(record)}: {finding.explained:.2g} at a size of {finding.size:.2g}, at most a share of "
            f"{finding.share:g} may be."
        )


def _unproven_checks(comparisons: tuple[Comparison, ...], provenance: dict[str, Any]) -> Iterator[str]:
    compared = {(c.pair.new.phase, c.pair.new.kind) for c in comparisons}
    for check in provenance.get("checks") or []:
        if check == "train":
            taken = range(provenance.get("resume_at", 0) + 1, provenance["steps"] + 1)
            ranks = range(provenance["ranks"]) if "ranks" in provenance else [None]
            steps = [phase_of(number, rank) for number in taken for rank in ranks]
            missing = [(step, kind) for step in steps for kind in _STEP_EVIDENCE if (step, kind) not in compared]
            if missing or not steps:
                step, kind = missing[0] if missing else ("no step", "record")
                yield f"Check train was asked for and no {kind} of {step} was compared."
        elif EVIDENCE_OF_CHECKS.get(check) not in compared:
            yield f"Check {check} was asked for and nothing of it was compared."


def coverage_reasons(comparisons: tuple[Comparison, ...], coverage: Coverage, provenance: dict[str, Any]) -> list[str]:
    reasons = list(_unproven_checks(comparisons, provenance))
    if not any(comparison.pair.new.kind in COMPUTED for comparison in comparisons):
        reasons.append("Nothing that was computed could be paired; is this the right family and variant?")
    elif not provenance.get("checks"):
        reasons.append("No check was asked for, so a match proves nothing; record both sides with --check.")
    if coverage.unaccounted:
        first = coverage.unaccounted[0]
        slot = f" {first.record.slot}" if first.record.slot else ""
        reasons.append(
            f"{counted(len(coverage.unaccounted), 'record')} {_have(len(coverage.unaccounted))} no twin and no written "
            "exclusion, the first is "
            f"{first.record.kind} `{first.record.name}`{slot} of the {first.side} side."
        )
    excluded = sum(item.side == LEGACY and not _is_seen(item) for item in coverage.excluded_records)
    in_part = sum(coverage.selected.values())
    shares = (
        ("records", excluded + in_part, excluded + len(comparisons)),
        ("leaf calls", coverage.excluded_leaf_calls, coverage.legacy_leaf_calls),
    )
    for what, part, whole in shares:
        share = part / max(1, whole)
        if share > MAX_EXCLUDED_SHARE:
            left_out = "excluded or compared in part" if what == "records" and in_part else "excluded"
            reasons.append(f"{share:.1%} of the legacy {what} are {left_out}; at most {MAX_EXCLUDED_SHARE:.0%} may be.")
    if coverage.missing_calls(LEGACY):
        missing = coverage.missing_calls(LEGACY)
        of = counted(coverage.legacy_leaf_calls, "leaf call")
        reasons.append(f"{missing} of {of} of the legacy side {_have(missing)} no twin.")
    if coverage.missing_calls(NEW):
        missing = coverage.missing_calls(NEW)
        reasons.append(f"{counted(missing, 'leaf call')} of the new side {_have(missing)} no twin.")
    if coverage.gradients_on_one_side:
        names = ", ".join(f"`{name}`" for name in coverage.gradients_on_one_side[:3])
        reasons.append(f"Parameters get a gradient on one side only: {names}.")
    return reasons


def _is_seen(item: Unpaired) -> bool:
    """Tell of an excluded record whether it was looked at, as zeros, or shows in what the module around it gives."""
    return item.exclusion is not None and bool(item.exclusion.zeros_only or item.exclusion.by)


def _have(number: int) -> str:
    return "has" if number == 1 else "have"
