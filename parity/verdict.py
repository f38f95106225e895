"""Come to a verdict: match, mismatch or not comparable."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Protocol

from converters.mapping import Mapping
from legacy_adapters.trace_writer import Record, zeros_digest

from .blame import Divergence, first_divergence
from .compare import EXACT, Comparison, Tolerance, compare_all
from .evidence import Evidence
from .pairing import LEGACY, NEW, Exclusion, Unpaired, pair
from .trace import Trace

MATCH, MISMATCH, INCOMPARABLE = "MATCH", "MISMATCH", "INCOMPARABLE"
EXIT_CODES = {MATCH: 0, MISMATCH: 1, INCOMPARABLE: 3}
MAX_EXCLUDED_SHARE = 0.02

#: What must be equal on both sides before bits can be compared at all.
_EXACT_CONDITIONS = ("threads", "cpu_capability", "device", "gpu", "torch")
#: Phase and kind of the records without which a check has not taken place.
_EVIDENCE = {"forward": ("predict", "module_out"), "loss": ("train", "loss"), "grad": ("train", "grad")}
_MAY_BE_ABSENT = ("gpu",)
_ALWAYS_EQUAL = ("family", "variant", "seed", "checks", "dtype")


class Recording(Protocol):
    """What one side recorded: a trace, or a golden file."""

    provenance: dict[str, Any]
    coverage: dict[str, Any]
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Coverage:
    """How much of the legacy side was compared.

    Attributes:
        legacy_leaf_calls: calls of modules without children on the legacy side.
        paired_leaf_calls: those with a twin call on the new side.
        excluded_records: unpaired records covered by a written exclusion.
        unaccounted: unpaired records that are not.
        never_executed: leaf modules of either side that never ran, by side.
        gradients_on_one_side: parameters that got a gradient on one side only.
    """

    legacy_leaf_calls: int
    paired_leaf_calls: int
    excluded_records: tuple[Unpaired, ...]
    unaccounted: tuple[Unpaired, ...]
    never_executed: dict[str, tuple[str, ...]]
    gradients_on_one_side: tuple[str, ...]


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
    """

    outcome: str
    reasons: tuple[str, ...]
    tolerance: Tolerance
    comparisons: tuple[Comparison, ...]
    coverage: Coverage
    divergence: Divergence | None
    provenance: dict[str, dict[str, Any]]
    classes: dict[str, dict[str, str]]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]


def judge(
    legacy: Recording,
    new: Trace,
    mapping: Mapping,
    exclusions: tuple[Exclusion, ...],
    tolerance: Tolerance,
    evidence: Evidence | None = None,
) -> Verdict:
    """Pair, compare and judge two recordings; ``evidence`` is needed for a derived tolerance.

    Sides recorded under different conditions are not comparable at all. Otherwise a mismatch outranks everything: a
    difference that was seen is a fact whatever was left out. Nothing compared, anything unpaired without a written
    reason, or too much excluded is never a match.
    """
    pairing = pair(legacy.records, new.records, mapping, exclusions)
    comparisons = tuple(compare_all(legacy, new, pairing.pairs, tolerance, evidence))
    unpaired = tuple(_confirmed(item) for item in pairing.unpaired)
    coverage = _coverage(legacy, new, mapping, unpaired)
    missing = [item.record for item in coverage.unaccounted if item.side == LEGACY]
    added = [item.record for item in coverage.unaccounted if item.side == NEW]
    divergence = first_divergence(comparisons, missing, legacy.records, added)
    conditions = _condition_reasons(legacy, new, tolerance)
    rejected = sum(not comparison.accepted for comparison in comparisons)
    if conditions:
        outcome, reasons = INCOMPARABLE, conditions
    elif rejected:
        lost = f" {len(coverage.unaccounted)} have no twin." if coverage.unaccounted else ""
        outcome, reasons = MISMATCH, (f"{rejected} of {len(comparisons)} records differ.{lost}",)
    else:
        reasons = _coverage_reasons(comparisons, coverage, legacy.provenance.get("checks") or [])
        outcome = INCOMPARABLE if reasons else MATCH
    provenance = {LEGACY: legacy.provenance, NEW: new.provenance}
    classes = {LEGACY: legacy.coverage.get("classes", {}), NEW: new.coverage.get("classes", {})}
    return Verdict(outcome, tuple(reasons), tolerance, comparisons, coverage, divergence, provenance, classes)


def _confirmed(item: Unpaired) -> Unpaired:
    """Take the exclusion away from a record that is not all zero, where the exclusion asks for that."""
    record = item.record
    needs_zeros = item.exclusion is not None and item.exclusion.zeros_only
    if needs_zeros and record.digest != zeros_digest(record.dtype, record.shape):
        return replace(item, exclusion=None)
    return item


def _condition_reasons(legacy: Recording, new: Recording, tolerance: Tolerance) -> tuple[str, ...]:
    names = _ALWAYS_EQUAL + (_EXACT_CONDITIONS if tolerance.name == EXACT else ())
    reasons = []
    for name in names:
        one, two = legacy.provenance.get(name), new.provenance.get(name)
        if one != two:
            reasons.append(f"{name} is {one} on the legacy side and {two} on the new one; record both alike.")
        elif one is None and name not in _MAY_BE_ABSENT:
            reasons.append(f"{name} is recorded on neither side; record both again.")
    return tuple(reasons)


def _coverage(legacy: Recording, new: Recording, mapping: Mapping, unpaired: tuple[Unpaired, ...]) -> Coverage:
    new_calls = Counter({(c["phase"], c["name"]): c["count"] for c in new.coverage["leaf_calls"]})
    total = paired = 0
    for entry in legacy.coverage["leaf_calls"]:
        twin = mapping.map_module(entry["name"]) or entry["name"]
        total += entry["count"]
        paired += min(entry["count"], new_calls[entry["phase"], twin])
    return Coverage(
        legacy_leaf_calls=total,
        paired_leaf_calls=paired,
        excluded_records=tuple(item for item in unpaired if item.exclusion is not None),
        unaccounted=tuple(item for item in unpaired if item.exclusion is None),
        never_executed={
            LEGACY: tuple(legacy.coverage["never_executed"]),
            NEW: tuple(new.coverage["never_executed"]),
        },
        gradients_on_one_side=_one_sided(legacy, new, mapping),
    )


def _one_sided(legacy: Recording, new: Recording, mapping: Mapping) -> tuple[str, ...]:
    targets = (mapping.target_of(name) for name in legacy.coverage["without_gradient"])
    ours = {name for name in targets if name is not None}  # a dropped parameter has no twin to differ from
    return tuple(sorted(ours ^ set(new.coverage["without_gradient"])))


def _coverage_reasons(comparisons: tuple[Comparison, ...], coverage: Coverage, checks: list[str]) -> list[str]:
    compared = {(c.pair.new.phase, c.pair.new.kind) for c in comparisons}
    reasons = [
        f"Check {name} was asked for and nothing of it was compared."
        for name in checks
        if _EVIDENCE[name] not in compared
    ]
    computed = [c for c in comparisons if c.pair.new.kind != "param"]
    if not computed:
        reasons.append("Nothing that was computed could be paired; is this the right family and variant?")
    if coverage.unaccounted:
        first = coverage.unaccounted[0]
        slot = f" {first.record.slot}" if first.record.slot else ""
        reasons.append(
            f"{len(coverage.unaccounted)} records have no twin and no written exclusion, the first is "
            f"{first.record.kind} `{first.record.name}`{slot} of the {first.side} side."
        )
    excluded = sum(item.side == LEGACY for item in coverage.excluded_records)
    share = excluded / max(1, excluded + len(comparisons))
    if share > MAX_EXCLUDED_SHARE:
        reasons.append(f"{share:.1%} of the legacy records are excluded; at most {MAX_EXCLUDED_SHARE:.0%} may be.")
    missing = coverage.legacy_leaf_calls - coverage.paired_leaf_calls
    if missing:
        reasons.append(f"{missing} of {coverage.legacy_leaf_calls} leaf calls of the legacy side have no twin.")
    if coverage.gradients_on_one_side:
        names = ", ".join(f"`{name}`" for name in coverage.gradients_on_one_side[:3])
        reasons.append(f"Parameters get a gradient on one side only: {names}.")
    return reasons
