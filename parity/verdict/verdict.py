"""Come to a verdict: match, mismatch or not comparable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as KeyMapping
from dataclasses import dataclass, field, replace
from typing import Any

from converters.errors import counted
from converters.rules.mapping import Mapping
from legacy_adapters import probes
from legacy_adapters.initialising import INIT
from legacy_adapters.phases import phase_of
from legacy_adapters.trace_writer import Key, Record, zeros_digest

from ..comparing.compare import EXACT, Comparison, Tolerance, compare_all
from ..comparing.coverage import Coverage, cover, lost_records
from ..comparing.derived import Finding, too_loose
from ..comparing.detections import ImageMatch, matched_images
from ..comparing.drift import Unable
from ..comparing.evidence import Evidence, likeness_of
from ..comparing.pairing import LEGACY, NEW, OF_METHODS, Exclusion, Pairing, Unpaired, pair
from ..sides.stopped import Stop, judged_part, until_stop, without_rest
from ..traces.trace import Recording, Trace
from . import degenerate
from .blame import FLOW, Divergence, NotFinite, capital, first_divergence, sentence
from .draws import comparable, first_strayed, without
from .echoes import explained
from .initial import InitialDifference, initial_differences
from .isolation import Isolation, places, told
from .labels import LabelCoverage, label_coverage
from .outcome import EXIT_CODES, INCOMPARABLE, MATCH, MISMATCH
from .unequal import DecisionDifference, differing_decisions
from .untouched import changed_inputs

MAX_EXCLUDED_SHARE = 0.02

#: What must be equal on both sides before bits can be compared at all.
_EXACT_CONDITIONS = ("threads", "cpu_capability", "device", "gpu", "torch")
#: Phase and kind of the records without which a check has not taken place.
_EVIDENCE = {
    "forward": ("predict", "module_out"), "loss": ("train", "loss"), "grad": ("train", "grad"), "init": (INIT, INIT),
}  # fmt: skip
#: Kinds that every step of a training must have left; an optimizer may be without state.
_STEP_EVIDENCE = ("loss", "grad", "setting", "state")
#: Kinds of records that a model computed; weights, inputs and what is left unchanged prove nothing.
_COMPUTED = ("module_out", "loss", "grad", INIT)
_MAY_BE_ABSENT = ("gpu", "gradient_flow", "resume_at", "ranks", "amp")
_ALWAYS_EQUAL = ("family", "variant", "seed", "checks", "dtype", "amp", "gradient_flow")
#: With check train.
_TRAINING_EQUAL = ("steps", "clip_order", "epoch_length", "resume_at", "ranks")


@dataclass(frozen=True)
class Verdict:
    """The outcome of a comparison.

    Attributes:
        outcome: ``MATCH``, ``MISMATCH`` or ``INCOMPARABLE``.
        reasons: why it is not a match, one sentence each.
        tolerance: what counted as equal.
        comparisons: every pair, in legacy recording order.
        coverage: what was left out.
        divergence: the first place where the sides part, if they do.
        provenance: of both sides.
        classes: of both sides' modules, by path.
        decisions: how far from a tie the decisions that differ are.
        detections: of each image, how those of both sides pair.
        initial: what is built or initialised differently.
        isolation: what the new side's modules compute by themselves; None if they were not run so.
        seals: digest of each side's recording, by side.
        is_too_loose: nothing speaks against a match but that the measured rounding is too large to show an error.
        seeds_before: those under which it was, so that the run took another one.
        stop: why a side did not come to its end; None if both did.
        degenerate: why the final outputs prove nothing, one sentence each.
        unable: why the legacy side could not run under autocast, and what that does to the new side; None if it could.
        labels: which classes were among the detections, and what the sides make of made-up predictions.
    """

    outcome: str
    reasons: tuple[str, ...]
    tolerance: Tolerance
    comparisons: tuple[Comparison, ...]
    coverage: Coverage
    divergence: Divergence | None
    provenance: dict[str, dict[str, Any]]
    classes: dict[str, dict[str, str]]
    decisions: tuple[DecisionDifference, ...] = ()
    detections: tuple[ImageMatch, ...] = ()
    isolation: Isolation | None = None
    initial: tuple[InitialDifference, ...] = ()
    stop: Stop | None = None
    degenerate: tuple[str, ...] = ()
    labels: LabelCoverage = field(default_factory=LabelCoverage)
    unable: Unable | None = None
    seals: KeyMapping[str, str] = field(default_factory=dict)
    is_too_loose: bool = False
    seeds_before: tuple[int, ...] = ()

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    @property
    def without_effect(self) -> tuple[Comparison, ...]:
        """Return the arguments and results of methods that differ though nothing that is computed does."""
        rejected = tuple(comparison for comparison in self.comparisons if not comparison.accepted)
        return rejected if all(comparison.pair.new.kind in OF_METHODS for comparison in rejected) else ()


def judge(
    legacy: Recording,
    new: Trace,
    mapping: Mapping,
    exclusions: tuple[Exclusion, ...],
    tolerance: Tolerance,
    evidence: Evidence | None = None,
    keys: KeyMapping[Key, Key] | None = None,
) -> Verdict:
    """Pair, compare and judge two recordings; ``evidence`` is needed for a derived tolerance.

    ``keys`` are of the pairing of an earlier run, which then is this one's, too.

    Sides recorded under different conditions are not comparable at all, nor are they under weights or inputs that make
    the legacy side's final outputs constant or not finite: what is decided on such numbers is chance. Otherwise a
    mismatch outranks everything: a difference that was seen is a fact whatever was left out. Nothing compared, anything
    unpaired without a written reason, or too much excluded is never a match. Of a new side that crashed what it
    recorded until then is judged: a difference there is a mismatch; without one the two are not comparable, and
    :func:`ended` raises the crash.

    How code passes values on between its methods is its own affair, so a difference there is none of what is computed:
    it tells where a difference comes from, and without one it is only told.
    """
    dropped = [*lost_records(legacy, LEGACY), *lost_records(new, NEW)]
    legacy = _as_probed(legacy, new)
    new, stop = judged_part(new, evidence.new_reference if evidence is not None else None)
    stop = Stop.of(legacy, LEGACY) or stop
    likeness = None if tolerance.name == EXACT else likeness_of(legacy, new, evidence)
    ours, theirs = legacy.records, new.records
    if not comparable(legacy, new):
        ours, theirs = without(ours), without(theirs)
    pairing = pair(ours, theirs, mapping, exclusions, likeness, keys)
    if stop is not None:
        pairing = until_stop(pairing, new)
    comparisons = tuple(compare_all(legacy, new, pairing.pairs, tolerance, evidence))
    lonely = [item.record for item in pairing.unpaired if item.side == LEGACY]
    cut_off = _cut_off(new, lonely, pairing)
    confirmed = [_confirmed(item) for item in pairing.unpaired]
    unpaired = explained(confirmed, comparisons, {record.key for record in cut_off}, pairing.keys)
    covered = cover(legacy, new, mapping, unpaired)
    if stop is not None:
        covered = without_rest(covered)
    missing = [item.record for item in covered.unaccounted if item.side == LEGACY]
    added = [item.record for item in covered.unaccounted if item.side == NEW]
    telling = [comparison for comparison in comparisons if comparison.pair.new.kind not in OF_METHODS]
    initial = initial_differences(legacy.coverage, new.coverage, mapping, comparisons)
    rejected = sum(not comparison.accepted for comparison in telling)
    strange = _not_finite(legacy, new, mapping) if rejected or stop is not None else []
    parts = bool(missing or added or strange or rejected)
    cut_off = _cut_off(new, missing, pairing)
    divergence = None
    if parts:
        divergence = first_strayed(ours, theirs, telling)
        optimizers = (legacy.provenance.get("optimizer", ""), new.provenance.get("optimizer", ""))
        divergence = divergence or first_divergence(comparisons, missing, ours, added, cut_off, strange, optimizers)
    if initial:  # before anything runs
        first = next((c for c in telling if c.pair.new.kind == INIT and not c.accepted), None)
        divergence = Divergence(initial[0].where, None, initial[0].message, first)
    touched = changed_inputs(legacy, new) if stop is None else None  # the other side had the time to do it
    divergence = divergence or touched
    is_too_loose, conditions = False, _condition_reasons(legacy, new, tolerance)
    stopped = (capital(sentence(str(stop))),) if stop is not None else ()
    lone_options = any(record.kind in ("setting", "update", "clip") for record in (*missing, *added))
    empty, labels = degenerate.reasons(legacy, new), label_coverage(legacy, new, mapping)
    lost = f" {len(covered.unaccounted)} {_have(len(covered.unaccounted))} no twin." if covered.unaccounted else ""
    differ = (f"{rejected} of {counted(len(comparisons), 'record')} differ{'s' * (rejected == 1)}.{lost}", *stopped)
    if conditions:
        outcome, reasons = INCOMPARABLE, conditions
    elif empty:
        outcome, reasons = INCOMPARABLE, (*empty, *(differ if rejected else ()))
    elif rejected or initial or lone_options or touched or (divergence and stop is not None and stop.side == NEW):
        outcome, reasons = MISMATCH, differ
        if not rejected and initial:
            reasons = (f"The model is built or initialised differently in {counted(len(initial), 'place')}.",)
        elif not rejected and touched:
            reasons = (touched.message, *stopped)
    elif stopped:
        outcome, reasons = INCOMPARABLE, stopped
    else:
        reasons = [*_coverage_reasons(comparisons, covered, legacy.provenance), *labels.objections()]
        reasons += [*dropped, *(_lone_reasons(covered) if dropped else ())]
        loose = tuple(_loose_reasons(comparisons))
        is_too_loose, reasons = bool(loose) and not reasons, [*reasons, *loose]
        outcome = INCOMPARABLE if reasons else MATCH
    provenance = {LEGACY: legacy.provenance, NEW: new.provenance}
    classes = {LEGACY: legacy.coverage.get("classes", {}), NEW: new.coverage.get("classes", {})}
    return Verdict(
        outcome, tuple(reasons), tolerance, comparisons, covered, divergence, provenance, classes,
        differing_decisions(legacy, new, comparisons, evidence), matched_images(legacy, new), initial=initial,
        stop=stop, degenerate=empty, labels=labels, seals={LEGACY: legacy.seal, NEW: new.seal},
        is_too_loose=is_too_loose,
    )  # fmt: skip


def _as_probed(legacy: Recording, new: Trace) -> Recording:
    """Leave out the legacy side's further calls of tapped functions, where the new side's adapter knows none."""
    if new.provenance.get("probed", True):
        return legacy
    return replace(legacy, records=tuple(record for record in legacy.records if record.phase != probes.PHASE))


def ended(verdict: Verdict) -> Verdict:
    """Return the verdict of a run whose sides came to their end, or differ before one did not.

    Raises:
        legacy_adapters.launch.SideError: if a side crashed and nothing that was recorded until then tells why.
    """
    if verdict.stop is not None and verdict.outcome != MISMATCH and not verdict.degenerate:
        raise verdict.stop.as_error
    return verdict


def with_isolation(
    verdict: Verdict, isolated: Verdict, order: Sequence[Record], forced: Sequence[Sequence] = ()
) -> Verdict:
    """Add what an isolated run showed: what differs there is a mismatch and is blamed first.

    An isolated run that cannot be compared proves nothing: a match is then not comparable, a mismatch stays one. If
    its conditions are others, what differs in it is no place either.

    Args:
        verdict: of the ordinary run.
        isolated: of the run in which every module was given its twin's inputs.
        order: all legacy records, in recording order.
        forced: keys of what was replaced in that run, see :func:`.isolation.places`.
    """
    reasons = isolated.reasons if isolated.outcome == INCOMPARABLE else ()
    other_conditions = reasons and not all(comparison.accepted for comparison in isolated.comparisons)
    missing = [item.record for item in isolated.coverage.unaccounted if item.side == LEGACY]
    lone = [item.record for item in isolated.coverage.excluded_records if item.side == NEW]
    found = () if other_conditions else places(isolated.comparisons, missing, verdict.comparisons, order, forced, lone)
    merged = replace(verdict, isolation=Isolation(isolated.comparisons, found, reasons))
    if found:
        merged = replace(merged, divergence=isolated.divergence)
    if verdict.outcome != MATCH:
        return merged
    if reasons:
        return replace(merged, outcome=INCOMPARABLE, reasons=tuple(f"Isolated: {reason}" for reason in reasons))
    if found:
        return replace(merged, outcome=MISMATCH, reasons=(f"{told(found)}.",))
    return merged


def _confirmed(item: Unpaired) -> Unpaired:
    """Take the exclusion away from a record that is not all zero, where the exclusion asks for that."""
    record = item.record
    needs_zeros = item.exclusion is not None and item.exclusion.zeros_only
    if needs_zeros and record.digest != zeros_digest(record.dtype, record.shape):
        return replace(item, exclusion=None)
    return item


def _cut_off(new: Trace, missing: Sequence[Record], pairing: Pairing) -> list[Record]:
    """Return the missing gradients whose tensors need none on the new side, in the order in which these came up."""
    lost = {pairing.keys[record.key]: record for record in missing if record.kind in FLOW}
    return [lost[key] for key in map(tuple, new.coverage.get("cut_off", ())) if key in lost]


def _not_finite(legacy: Recording, new: Trace, mapping: Mapping) -> list[NotFinite]:
    """Return the results that are not finite on the new side alone, of module calls that are not recorded."""
    ours = {
        (phase, mapping.map_module(name) or name, call, what)
        for phase, _, name, call, what in legacy.coverage.get("not_finite", ())
    }
    found = (NotFinite(*entry) for entry in new.coverage.get("not_finite", ()))
    return [one for one in found if (one.phase, one.name, one.call, one.what) not in ours]


def _condition_reasons(legacy: Recording, new: Recording, tolerance: Tolerance) -> tuple[str, ...]:
    names = _ALWAYS_EQUAL + (_EXACT_CONDITIONS if tolerance.name == EXACT else ())
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


def _lone_reasons(coverage: Coverage) -> Iterator[str]:
    """Say which records without a twin a wrong count may be about."""
    for item in coverage.explained_records[:1]:
        record = item.record
        more = f" and {len(coverage.explained_records) - 1} more" if len(coverage.explained_records) > 1 else ""
        yield f"Without a twin is {record.kind} `{record.name}` {record.slot}".rstrip() + f" of the {item.side} side{more}."


def _loose_reasons(comparisons: Sequence[Comparison]) -> Iterator[str]:
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
            f"{record.kind} `{record.name}` {record.slot}".rstrip()
            + f": {finding.explained:.2g} at a size of {finding.size:.2g}, at most a share of {finding.share:g} may be."
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
        elif _EVIDENCE.get(check) not in compared:
            yield f"Check {check} was asked for and nothing of it was compared."


def _coverage_reasons(comparisons: tuple[Comparison, ...], coverage: Coverage, provenance: dict[str, Any]) -> list[str]:
    reasons = list(_unproven_checks(comparisons, provenance))
    if not any(comparison.pair.new.kind in _COMPUTED for comparison in comparisons):
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
    excluded = sum(item.side == LEGACY for item in coverage.excluded_records)
    shares = (
        ("records", excluded, excluded + len(comparisons)),
        ("leaf calls", coverage.excluded_leaf_calls, coverage.legacy_leaf_calls),
    )
    for what, part, whole in shares:
        share = part / max(1, whole)
        if share > MAX_EXCLUDED_SHARE:
            reasons.append(f"{share:.1%} of the legacy {what} are excluded; at most {MAX_EXCLUDED_SHARE:.0%} may be.")
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


def _have(number: int) -> str:
    return "has" if number == 1 else "have"
