"""Come to a verdict: match, mismatch or not comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converters.rules.mapping import Mapping as NameMapping
from legacy_adapters.ground.words import counted
from legacy_adapters.recording.trace_writer import Key, Record

from ..comparing.compare import Comparison, Tolerance
from ..comparing.containers import Containers, containers, contradicted
from ..comparing.converted import in_new_form
from ..comparing.coverage import Coverage, lost_records
from ..comparing.detections import ImageMatch, matched_images
from ..comparing.drift import AutocastFailure
from ..comparing.evidence import Evidence, likeness_of
from ..comparing.idle import idle
from ..comparing.in_parts import in_legacy_parts
from ..comparing.pairing import LEGACY, NEW, Exclusion
from ..comparing.turned import forms_for, turned
from ..decisions.trials import DecisionDifference
from ..sides.stopped import Stop
from ..traces.kinds import OF_METHODS, Kind
from ..traces.trace import Recording, Trace
from . import degenerate
from .blame import Divergence, first_divergence
from .case import Case, case_of
from .counterparts import Counterparts
from .diagnosing import Explanation, explanation_of
from .draws import first_strayed
from .hints import hint_of, hint_of_error
from .initial import InitialDifference, initial_differences
from .isolation import Isolation, count_line, culprits_of
from .labels import LabelCoverage, label_coverage
from .outcome import EXIT_CODES, INCOMPARABLE, MATCH, MISMATCH
from .reasons import condition_reasons, coverage_reasons, difference_reasons, lone_reasons, loose_reasons
from .untouched import changed_inputs

#: How often modules are taken for one; each time those that the values around them contradict are given up.
_TRIALS = 3


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
        autocast_failure: why the legacy side could not run under autocast, and what that does to the new side; None if it
            could.
        labels: which classes were among the detections, and what the sides make of made-up predictions.
        idle_exclusions: those that were asked for and cover no record.
        containers: paths of modules of both sides that were taken for one because they hold the same parameters.
        idle_names: aliases and forms of the family that fit nothing in this run.
        layout: what is said of the first divergence if it is one of layout only; else empty.
        forms: that would tell of everything that differs in its layout only.
        renamed_outputs: slots of both sides' own outputs that hold the same and are called otherwise.
        explanation: what the difference at the first divergence is, and where in the tensor; see :mod:`..diagnosis`.
    """

    outcome: str
    reasons: tuple[str, ...]
    tolerance: Tolerance
    comparisons: tuple[Comparison, ...] = field(repr=False)
    coverage: Coverage = field(repr=False)
    divergence: Divergence | None
    provenance: dict[str, dict[str, Any]] = field(repr=False)
    classes: dict[str, dict[str, str]] = field(repr=False)
    decisions: tuple[DecisionDifference, ...] = field(default=(), repr=False)
    detections: tuple[ImageMatch, ...] = field(default=(), repr=False)
    isolation: Isolation | None = field(default=None, repr=False)
    initial: tuple[InitialDifference, ...] = field(default=(), repr=False)
    stop: Stop | None = None
    degenerate: tuple[str, ...] = ()
    labels: LabelCoverage = field(default_factory=LabelCoverage, repr=False)
    autocast_failure: AutocastFailure | None = None
    seals: Mapping[str, str] = field(default_factory=dict)
    is_too_loose: bool = False
    seeds_before: tuple[int, ...] = ()
    idle_exclusions: tuple[Exclusion, ...] = ()
    containers: Containers = ()
    idle_names: tuple[str, ...] = ()
    layout: str = ""
    forms: tuple[str, ...] = ()
    renamed_outputs: tuple[tuple[str, str], ...] = ()
    explanation: Explanation = field(default_factory=Explanation, repr=False)

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
    mapping: NameMapping,
    exclusions: tuple[Exclusion, ...],
    tolerance: Tolerance,
    evidence: Evidence | None = None,
    keys: Mapping[Key, Key] | None = None,
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

    Where the sides part, modules that hold the same parameters are taken for one (:mod:`..comparing.containers`), so that
    the place is named by their calls, too. What is no mismatch without that becomes none by it.

    The new side's calls are judged in as many parts as the legacy side makes (:mod:`..comparing.in_parts`). At last it is
    tried to say what the difference is.
    """
    legacy = in_new_form(legacy, mapping)
    new = in_legacy_parts(new, legacy, mapping, evidence)
    if evidence is not None:
        reference = in_legacy_parts(evidence.new_reference, legacy, mapping, evidence)
        evidence = replace(evidence, new=new, new_reference=reference)
    verdict = _with_containers(legacy, new, mapping, exclusions, tolerance, evidence, keys)
    explanation = explanation_of(verdict.divergence, verdict.comparisons, legacy, new, mapping, evidence)
    return replace(verdict, explanation=explanation)


def _with_containers(
    legacy: Recording, new: Trace, mapping: NameMapping, exclusions: tuple[Exclusion, ...], tolerance: Tolerance,
    evidence: Evidence | None, keys: Mapping[Key, Key] | None,
) -> Verdict:
    """Judge; where the sides part, take modules that hold the same parameters for one."""
    known: dict[tuple, Comparison] = {}
    verdict = _judged(legacy, new, mapping, exclusions, tolerance, evidence, keys, known)
    if keys is not None or verdict.outcome == MATCH or not verdict.comparisons:
        return verdict
    tried = containers(legacy, new, mapping)
    for _ in range(_TRIALS):
        if not tried:
            break
        with_containers = replace(mapping, containers=tried)
        other = _judged(legacy, new, with_containers, exclusions, tolerance, evidence, keys, known)
        wrong = contradicted(other.comparisons, tried, mapping)
        if not wrong:
            is_new = other.outcome == MISMATCH and verdict.outcome != MISMATCH
            return verdict if is_new else replace(other, containers=tried)
        tried = tuple(pair for pair in tried if pair not in wrong)
    return verdict


def _judged(
    legacy: Recording, new: Trace, mapping: NameMapping, exclusions: tuple[Exclusion, ...], tolerance: Tolerance,
    evidence: Evidence | None, keys: Mapping[Key, Key] | None, known: dict[tuple, Comparison],
) -> Verdict:
    """Judge by the names that ``mapping`` gives; arguments as of :func:`judge` and :func:`.case.case_of`."""
    case = case_of(legacy, new, mapping, exclusions, tolerance, evidence, keys, known)
    initial = initial_differences(case.legacy.coverage, case.new.coverage, mapping, case.comparisons)
    touched = changed_inputs(case.legacy, case.new) if case.stop is None else None  # a stopped side had no time
    divergence = _divergence(case, initial) or touched
    if divergence is not None:
        divergence = replace(divergence, hint=hint_of(divergence, mapping.hints))
    stop = case.stop and replace(case.stop, hint=hint_of_error(case.stop.error, mapping.hints))
    empty = degenerate.reasons(case.legacy, case.new)
    labels = label_coverage(case.legacy, case.new, mapping)
    conditions, differences = condition_reasons(case.legacy, case.new, tolerance), difference_reasons(case)
    is_other = bool(case.rejected or initial or case.lone_options or touched or labels.misnaming)
    is_too_loose = False
    orders = _orders(case, evidence)
    at = next((i for i, c in enumerate(case.comparisons) if divergence and c is divergence.comparison), None)
    if conditions:
        outcome, reasons = INCOMPARABLE, conditions
    elif empty:
        outcome, reasons = INCOMPARABLE, (*empty, *(differences if case.rejected else ()))
    elif is_other or (divergence and case.stop is not None and case.stop.side == NEW):
        outcome, reasons = MISMATCH, differences
        if not case.rejected and initial:
            reasons = (f"The model is built or initialised differently in {counted(len(initial), 'place')}.",)
        elif not case.rejected and touched:
            reasons = (touched.message, *case.stopped)
        elif not case.rejected and not case.lone_options and labels.misnaming:
            reasons = case.stopped
        reasons = (*filter(None, [labels.misnaming]), *reasons)
    elif case.stopped:
        outcome, reasons = INCOMPARABLE, case.stopped
    else:
        dropped = [*lost_records(legacy, LEGACY), *lost_records(new, NEW)]
        reasons = [*coverage_reasons(case.comparisons, case.coverage, legacy.provenance), *labels.objections()]
        reasons += [*dropped, *(lone_reasons(case.coverage) if dropped else ())]
        loose = tuple(loose_reasons(case.comparisons))
        is_too_loose, reasons = bool(loose) and not reasons, [*reasons, *loose]
        outcome = INCOMPARABLE if reasons else MATCH
    return Verdict(
        outcome, tuple(reasons), tolerance, case.comparisons, case.coverage, divergence,
        provenance={LEGACY: legacy.provenance, NEW: new.provenance},
        classes={side: of.coverage.get("classes", {}) for side, of in ((LEGACY, legacy), (NEW, new))},
        decisions=_differing_decisions(case.comparisons), detections=matched_images(case.legacy, case.new),
        initial=initial, stop=stop, degenerate=empty, labels=labels,
        seals={LEGACY: legacy.seal, NEW: new.seal}, is_too_loose=is_too_loose,
        idle_names=idle(case.legacy, case.new, mapping),
        layout=f"equal after permuting its axes {orders[at]}" if at in orders else "",
        forms=tuple(forms_for(case.comparisons, orders)),
    )  # fmt: skip


def _orders(case: Case, evidence: Evidence | None) -> dict[int, tuple[int, ...]]:
    """Return what differs in its layout only, see :func:`turned`."""
    near = likeness_of(case.legacy, case.new, evidence)
    return {} if near is None else turned(case.comparisons, near)


def _divergence(case: Case, initial: Sequence[InitialDifference]) -> Divergence | None:
    """Return the first place where the sides part; None if they do not."""
    if initial:  # before anything runs
        first = next((c for c in case.telling if c.pair.new.kind == Kind.INIT and not c.accepted), None)
        return Divergence(initial[0].where, None, initial[0].message, first)
    # what the rules drop has no twin, so it is not where the sides part
    missing = [record for record in case.lone(LEGACY) if not case.counterparts.is_dropped(record)]
    # and a module without a counterpart tells of code that is divided otherwise, unless nothing else differs
    of_both = [record for record in missing if not case.counterparts.is_lone(record)]
    missing = of_both if of_both or case.rejected else missing
    added = case.lone(NEW)
    if not (missing or added or case.not_finite or case.rejected):
        return None
    optimizers = tuple(side.provenance.get("optimizer", "") for side in (case.legacy, case.new))

    def first(missing: Sequence[Record], comparisons: Sequence[Comparison]) -> Divergence | None:
        return first_strayed(*case.orders, case.telling) or first_divergence(
            comparisons, missing, case.orders[0], added, case.cut_off, case.not_finite, optimizers,
            case.counterparts,
        )

    found = first(missing, case.comparisons)
    sure = [record for record in missing if (LEGACY, record.key) not in case.excusable]
    is_all_sure = len(sure) == len(missing) and case.assumed == case.comparisons
    if is_all_sure or all(comparison.accepted for comparison in case.assumed if comparison.pair.new.kind not in OF_METHODS):
        return found
    # what may be left out, or be harmless, is where the sides part only if that code computes something else
    without = first(sure, case.assumed)
    return found if found and without and found.where == without.where else without


def _differing_decisions(comparisons: Sequence[Comparison]) -> tuple[DecisionDifference, ...]:
    """Return every decision that is not the same on both sides, accepted if each of its slots is."""
    slots: dict[tuple[str, str, int], list[Comparison]] = {}
    for comparison in comparisons:
        if comparison.decision is not None:
            slots.setdefault(comparison.decision.call_key, []).append(comparison)
    return tuple(replace(group[0].decision, accepted=all(c.accepted for c in group)) for group in slots.values())


def with_asked(verdict: Verdict, exclusions: Sequence[Exclusion]) -> Verdict:
    """Note which exclusions that a user asked for cover nothing; one pattern for both sides may cover one alone."""

    def pattern(exclusion: Exclusion) -> Exclusion:
        return replace(exclusion, side="")

    used = {pattern(item.exclusion) for item in verdict.coverage.excluded_records if item.exclusion is not None}
    return replace(verdict, idle_exclusions=tuple(one for one in exclusions if pattern(one) not in used))


def ended(verdict: Verdict) -> Verdict:
    """Return the verdict of a run whose sides came to their end, or differ before one did not.

    Raises:
        legacy_adapters.launch.SideError: if a side crashed and nothing that was recorded until then tells why.
    """
    if verdict.stop is not None and verdict.outcome != MISMATCH and not verdict.degenerate:
        raise verdict.stop.as_error
    return verdict


def with_isolation(
    verdict: Verdict, isolated: Verdict, order: Sequence[Record], forced: Sequence[Sequence] = (),
    counterparts: Counterparts | None = None,
) -> Verdict:
    """Add what an isolated run showed: what differs there is a mismatch and is blamed first.

    An isolated run that cannot be compared proves nothing: a match is then not comparable, a mismatch stays one. If
    its conditions are others, what differs in it is no place either.

    Args:
        verdict: of the ordinary run.
        isolated: of the run in which every module was given its twin's inputs.
        order: all legacy records, in recording order.
        forced: keys of what was replaced in that run, see :func:`.isolation.culprits_of`.
        counterparts: see there.
    """
    reasons = isolated.reasons if isolated.outcome == INCOMPARABLE else ()
    other_conditions = reasons and not all(comparison.accepted for comparison in isolated.comparisons)
    missing = [item.record for item in isolated.coverage.unaccounted if item.side == LEGACY]
    lone = [item.record for item in isolated.coverage.excluded_records if item.side == NEW]
    culprits = ()
    if not other_conditions:
        culprits = culprits_of(isolated.comparisons, missing, verdict.comparisons, order, forced, lone, counterparts)
    merged = replace(verdict, isolation=Isolation(isolated.comparisons, culprits, reasons))
    if culprits:
        merged = replace(merged, divergence=isolated.divergence, explanation=isolated.explanation)
    if verdict.outcome != MATCH:
        return merged
    if reasons:
        return replace(merged, outcome=INCOMPARABLE, reasons=tuple(f"Isolated: {reason}" for reason in reasons))
    if culprits:
        return replace(merged, outcome=MISMATCH, reasons=(f"{count_line(culprits)}.",))
    return merged
