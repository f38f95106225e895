"""Compare paired records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from legacy_adapters.trace_writer import Record

from .derived import Finding, decision_margin, examine
from .evidence import Evidence
from .pairing import Pair
from .trace import Trace

EXACT, FIXED, DERIVED = "exact", "fixed", "derived"


@dataclass(frozen=True)
class Tolerance:
    """What counts as equal.

    Attributes:
        name: ``exact`` (same dtype, shape and bits), ``fixed`` (floats within ``atol + rtol * |legacy|``; whole
            numbers and booleans exactly; NaN and infinities in the same places) or ``derived`` (as ``fixed``, the
            bounds taken from the legacy code's own rounding, see :mod:`.derived`).
        rtol: relative part of ``fixed``.
        atol: absolute part of ``fixed``.
    """

    name: str = EXACT
    rtol: float = 0.0
    atol: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in (EXACT, FIXED, DERIVED):
            raise ValueError(f"Tolerance {self.name!r} is unknown; expected exact, fixed or derived.")
        if not all(math.isfinite(bound) and bound >= 0 for bound in (self.rtol, self.atol)):
            raise ValueError(f"rtol {self.rtol} and atol {self.atol} must be finite and not negative.")


@dataclass(frozen=True)
class Difference:
    """How two tensors differ.

    Attributes:
        max_abs: largest absolute difference over the elements finite on both sides; NaN if shapes or dtypes differ.
        differing: share of elements with other bits or values, in [0, 1].
        note: what cannot be said in numbers, e.g. other shapes; else empty.
    """

    max_abs: float
    differing: float
    note: str


@dataclass(frozen=True)
class Comparison:
    """One pair's result.

    Attributes:
        pair: the records.
        identical: same dtype, shape and bits.
        accepted: equal under the tolerance.
        difference: None if identical.
        finding: under a derived tolerance, what was measured and allowed; else None, as for decisions.
    """

    pair: Pair
    identical: bool
    accepted: bool
    difference: Difference | None
    finding: Finding | None = None


def compare_all(
    legacy: Trace, new: Trace, pairs: Iterable[Pair], tolerance: Tolerance, evidence: Evidence | None = None
) -> Iterator[Comparison]:
    """Compare pair by pair; identical tensors are told by their digests and not read.

    Args:
        legacy: not read under ``derived``; ``evidence`` has its values then.
        new: the other side.
        pairs: of their records.
        tolerance: what counts as equal.
        evidence: for ``derived``.
    """
    for pair in pairs:
        if pair.legacy.digest == pair.new.digest:
            yield Comparison(pair, True, True, None)
        elif evidence is not None and _is_decision(pair.new, evidence.new) and pair.legacy.dtype == pair.new.dtype:
            found = decision_margin(pair, evidence)
            yield Comparison(pair, False, found.is_tie, Difference(float("nan"), 1.0, str(found)))
        elif (pair.legacy.dtype, pair.legacy.shape) != (pair.new.dtype, pair.new.shape):
            note = f"{_kind(pair.legacy)} became {_kind(pair.new)}"
            yield Comparison(pair, False, False, Difference(float("nan"), 1.0, note))
        elif evidence is not None:
            yield _compare_derived(pair, evidence)
        else:
            yield _compare(pair, legacy.tensor(pair.legacy), new.tensor(pair.new), tolerance)


def _kind(record: object) -> str:
    return f"{record.dtype}{list(record.shape)}"


def _compare(pair: Pair, expected: Tensor, found: Tensor, tolerance: Tolerance) -> Comparison:
    difference = measure(expected, found)
    return Comparison(pair, False, accepted(expected, found, tolerance), difference)


def _compare_derived(pair: Pair, evidence: Evidence) -> Comparison:
    record = pair.legacy
    # both sides load the same weights, so these have no rounding of their own
    sample = evidence.sample(pair) if record.is_float and record.kind != "param" else None
    if sample is None:
        what = "a float64 twin is missing" if record.is_float else "other whole numbers or booleans"
        what = {"param": "other weights", "state": "changed by training on one side only"}.get(record.kind, what)
        return Comparison(pair, False, False, Difference(float("nan"), 1.0, what))
    finding = examine(sample, gradient=record.kind == "grad")
    difference = measure(sample.legacy, sample.new)
    if finding.objection:
        difference = replace(difference, note=finding.objection)
    return Comparison(pair, False, not finding.objection, difference, finding)


def _is_decision(record: Record, trace: Trace) -> bool:
    """Tell a decision from other taps, e.g. the labels of the result."""
    return (
        record.kind == "tap"
        and not record.is_float
        and bool(trace.slots(record.phase, "basis", record.name, record.call))
    )


def accepted(expected: Tensor, found: Tensor, tolerance: Tolerance) -> bool:
    """Tell whether ``found`` equals ``expected`` under ``tolerance``; dtypes and shapes are equal already."""
    if tolerance.name == EXACT:
        return False  # the digests differ, so some bit does
    if not expected.is_floating_point():
        return torch.equal(expected, found)
    return torch.allclose(found.double(), expected.double(), tolerance.rtol, tolerance.atol, equal_nan=True)


def measure(expected: Tensor, found: Tensor) -> Difference:
    """Measure the difference of two tensors of one dtype and shape."""
    if not expected.numel():
        return Difference(0.0, 0.0, "")
    if not expected.is_floating_point():
        unequal = expected != found
        gap = (expected.double() - found.double()).abs().max().item()
        return Difference(gap, unequal.double().mean().item(), "")
    one, two = expected.double(), found.double()
    finite = one.isfinite() & two.isfinite()
    gap = (one - two)[finite].abs()
    nan_moved = int((one.isnan() != two.isnan()).sum())
    inf_moved = int((one.isinf() | two.isinf()).logical_and(one != two).logical_and(~one.isnan() & ~two.isnan()).sum())
    counts = ((nan_moved, "NaN on one side only"), (inf_moved, "Inf against another value"))
    notes = [f"{count} {what}" for count, what in counts if count]
    both_nan = one.isnan() & two.isnan()
    differing = ((one != two) & ~both_nan).double().mean().item()
    if differing == 0.0 and not notes:
        notes = ["signs of zero or payloads of NaN differ"]
    return Difference(gap.max().item() if gap.numel() else 0.0, differing, ", ".join(notes))
