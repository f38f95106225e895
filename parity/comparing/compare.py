"""Compare paired records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from legacy_adapters.recording.kinds import DRAWN
from legacy_adapters.recording.trace_writer import Record, content_digest

from ..decisions.kinds import rule_of
from ..decisions.ranking import Ranking
from ..decisions.trials import DecisionDifference
from ..traces.kinds import FLOW, Kind
from ..traces.pieces import Numbers, together
from ..traces.shard import TORCH_DTYPES
from ..traces.trace import Recording, Trace, TraceError
from .deciding import Decisions
from .derived import Finding, judged
from .evidence import Evidence, is_of_one, norms, whole
from .layers import Layers
from .metrics import Metrics, measure_pieces
from .metrics import measure as measure_numbers
from .pairing import Pair

#: Kinds of records that hold what code passes on, numbers among it.
_ARGUMENTS = frozenset((Kind.MODULE_IN, Kind.BASIS))
_NUMBERS = _ARGUMENTS | FLOW | {Kind.MODULE_OUT, Kind.LOSS}
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


#: A learning rate is computed in double precision by a few operations; no tensor's rounding is in it.
_SETTINGS = Tolerance(FIXED, rtol=2.0**-44)
#: Initial values are computed once, of whole random numbers by few operations: some units in the last place of their
#: size, for other kernels have other sines.
_INITIAL = 2.0**-20


@dataclass(frozen=True)
class Difference:
    """How two tensors differ.

    Attributes:
        max_abs: largest absolute difference over the elements finite on both sides; NaN if shapes or dtypes differ.
        differing: share of elements with other bits or values, in [0, 1].
        note: what cannot be said in numbers, e.g. other shapes; else empty.
        metrics: all that was measured; None if nothing could be.
    """

    max_abs: float
    differing: float
    note: str
    metrics: Metrics | None = None

    @classmethod
    def of(cls, metrics: Metrics) -> Difference:
        """Return what is said of ``metrics``."""
        return cls(metrics.max_abs, metrics.differing, metrics.note, metrics)


@dataclass(frozen=True)
class Comparison:
    """One pair's result.

    Attributes:
        pair: the records.
        identical: same dtype, shape and bits.
        accepted: equal under the tolerance.
        difference: None if identical.
        finding: under a derived tolerance, what was measured and allowed; else None, as for decisions.
        decision: that the records are of, if they are of one and not the same: how far it is from a tie.
    """

    pair: Pair
    identical: bool
    accepted: bool
    difference: Difference | None
    finding: Finding | None = None
    decision: DecisionDifference | None = None


def compare_all(
    legacy: Trace, new: Trace, pairs: Iterable[Pair], tolerance: Tolerance, evidence: Evidence | None = None,
    known: dict[tuple, Comparison] | None = None, any_shape: bool = False,
) -> Iterator[Comparison]:
    """Compare pair by pair; identical tensors are told by their digests and not read.

    Tensors are read and measured in pieces. Two contents are compared once, however many pairs have them.

    Args:
        legacy: not read under ``derived``; ``evidence`` has its values then.
        new: the other side.
        pairs: of their records.
        tolerance: what counts as equal.
        evidence: for ``derived``.
        known: what earlier calls with these recordings, tolerance and evidence measured; what this one measures is added,
            so that recordings that are paired several times are read once.
        any_shape: compare tensors of as many numbers as if both had the legacy side's shape.

    Raises:
        TraceError: if a tensor cannot be read or is not what was recorded.
    """
    pairs, known = tuple(pairs), {} if known is None else known
    work, decisions = {}, Decisions(legacy, new, evidence)
    layers = None if evidence is None else Layers(pairs, evidence)
    same = {id(pair) for pair in pairs if _is_same(legacy, new, pair) or (any_shape and _is_same_laid_out(new, pair))}
    for pair in pairs:
        if id(pair) not in same:
            compare = partial(_compare_one, legacy, new, pair, tolerance, evidence, decisions, layers, any_shape)
            work.setdefault(_work_of(pair, evidence), compare)
    results = {}
    for key, compare in work.items():
        asked = layers.asked if layers is not None else 0
        results[key] = known[key] if key in known else compare()
        if layers is None or layers.asked == asked:  # else it depends on how the other records are paired
            known[key] = results[key]
    for pair in pairs:
        if id(pair) in same:
            yield Comparison(pair, True, True, None)
        else:
            yield replace(results[_work_of(pair, evidence)], pair=pair, decision=decisions.of(pair))


def _is_same(legacy: Recording, new: Trace, pair: Pair) -> bool:
    """Tell whether two records hold the same, though perhaps not in the same type or length."""
    if pair.legacy.digest == pair.new.digest:
        return True
    return _is_one_number(pair, new) or _is_one_draw(pair, new) or _is_one_ranking(legacy, new, pair)


def _is_same_laid_out(new: Trace, pair: Pair) -> bool:
    """Tell whether two tensors hold the same in another shape."""
    return is_reshaped(pair) and _becomes(pair.legacy, new.tensor(pair.new).reshape(pair.legacy.shape))


def is_reshaped(pair: Pair) -> bool:
    """Tell whether two tensors of one type have as many elements in another shape, of which features are the last part.

    Dimensions of length 1 count for nothing; of the others the first may be one on one side and several on the other.
    """
    one, two = pair.legacy, pair.new
    if one.dtype != two.dtype or one.shape == two.shape or math.prod(one.shape) != math.prod(two.shape):
        return False
    ours, theirs = ([length for length in of.shape if length != 1] for of in (one, two))
    return ours[-1:] == theirs[-1:]


def _is_one_ranking(legacy: Recording, new: Trace, pair: Pair) -> bool:
    """Tell whether one side ranks all scores and begins as the other does, which lists the best only."""
    lists = rankings(legacy, new, pair)
    if lists is None:
        return False
    basis = new.values_of(pair.new.phase, Kind.BASIS, pair.new.name, pair.new.call)
    one, two = Ranking().aligned(*({"indices": ranked} for ranked in lists), basis)
    return torch.equal(one["indices"], two["indices"])


def rankings(legacy: Recording, new: Trace, pair: Pair) -> tuple[Tensor, Tensor] | None:
    """Return what both sides rank, [..., k] indices each, if the records are of rankings of other lengths; else None."""
    one, two = pair.legacy, pair.new
    if one.kind != Kind.TAP or one.is_float or one.dtype != two.dtype or one.shape == two.shape:
        return None
    rule = rule_of(new.slots(two.phase, Kind.BASIS, two.name, two.call))
    ours, theirs = legacy.values_of(*one.key[:4]), new.values_of(*two.key[:4])
    if not isinstance(rule, Ranking) or not len(ours) == len(theirs) == 1:
        return None  # a result, say, of boxes, scores and labels
    return next(iter(ours.values())), next(iter(theirs.values()))


def _is_one_number(pair: Pair, new: Trace) -> bool:
    """Tell whether two single numbers are one: ``1``, ``1.0``, ``torch.tensor(1)``, ``torch.tensor([1])``.

    Arguments may be of other types; of what is computed with them only the shape may differ, [1] for [].

    The legacy side's may be known by its digest only, so the new one is brought to its type.
    """
    one, two = pair.legacy, pair.new
    kinds = _NUMBERS if one.dtype == two.dtype else _ARGUMENTS
    if one.kind not in kinds or (one.dtype, one.shape) == (two.dtype, two.shape):
        return False
    if not {one.shape, two.shape} <= {(), (1,)}:
        return False
    number = new.tensor(two).reshape(one.shape)
    return _is_converted(one, number) or (one.is_float and two.is_float and _becomes(one, number))


def _is_one_draw(pair: Pair, new: Trace) -> bool:
    """Tell whether two draws are one: ``randint_like`` gives whole numbers in the type of a tensor, ``randint`` its own."""
    one, two = pair.legacy, pair.new
    if one.kind != Kind.TAP or one.slot != DRAWN or one.dtype == two.dtype or one.shape != two.shape:
        return False
    return _is_converted(one, new.tensor(two))


def _is_converted(record: Record, tensor: Tensor) -> bool:
    """Tell whether a tensor of another type holds exactly the values of a record."""
    return _becomes(record, tensor) and torch.equal(tensor.to(TORCH_DTYPES[record.dtype]).to(tensor.dtype), tensor)


def _becomes(record: Record, tensor: Tensor) -> bool:
    return content_digest(tensor.to(TORCH_DTYPES[record.dtype])) == record.digest


def _work_of(pair: Pair, evidence: Evidence | None) -> tuple:
    """Return what two pairs have in common whose comparison is the same."""
    if evidence is not None:
        return pair.legacy.key, pair.legacy.digest, pair.new.key
    return pair.legacy.digest, pair.new.digest, _is_setting(pair.new)


def _compare_one(
    legacy: Trace, new: Trace, pair: Pair, tolerance: Tolerance, evidence: Evidence | None, decisions: Decisions,
    layers: Layers | None, any_shape: bool,
) -> Comparison:
    if evidence is not None and not pair.new.is_float and pair.legacy.dtype == pair.new.dtype:
        decision = decisions.of(pair)
        if decision is not None and decision.ruling is not None:
            ruling = decision.ruling
            return Comparison(pair, False, ruling.is_tie, Difference(float("nan"), 1.0, str(ruling)))
    if pair.legacy.dtype != pair.new.dtype or not (_is_one_form(pair) or (any_shape and is_reshaped(pair))):
        note = f"{_kind(pair.legacy)} became {_kind(pair.new)}"
        return Comparison(pair, False, False, Difference(float("nan"), 1.0, note))
    if evidence is not None and layers is not None:
        return _compare_derived(pair, evidence, layers)
    comparison = _compare(pair, legacy.stored(pair.legacy), whole(new, pair.new, pair.legacy.shape), tolerance)
    if comparison.difference.metrics.same_bits:
        legacy.check(pair.legacy)
        new.check(pair.new)
        raise TraceError(f"{new.folder} is damaged: equal tensors of `{pair.new.name}` have other digests.")
    return comparison


def _is_one_form(pair: Pair) -> bool:
    """Tell whether two tensors have one shape, or are one float each of what is computed: [] for [1]."""
    shapes = pair.legacy.shape, pair.new.shape
    return shapes[0] == shapes[1] or (pair.legacy.kind in _NUMBERS and pair.legacy.is_float and is_of_one(*shapes))


def _kind(record: object) -> str:
    return f"{record.dtype}{list(record.shape)}"


def _compare(pair: Pair, legacy: Numbers, new: Numbers, tolerance: Tolerance) -> Comparison:
    within = tolerance.name != EXACT  # the digests differ, so some bit does
    if within and _is_setting(pair.new):
        tolerance = _SETTINGS

    def watched() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal within
        for one, two in together(legacy, new):
            within = within and accepted(one, two, tolerance)
            yield one, two

    difference = Difference.of(measure_pieces(watched(), legacy.dtype))
    return Comparison(pair, False, within, difference)


def _compare_derived(pair: Pair, evidence: Evidence, layers: Layers) -> Comparison:
    record = pair.legacy
    # both sides load the same weights, so these have no rounding of their own
    sample = evidence.sample(pair) if record.is_float and record.kind != Kind.PARAM else None
    if sample is None:
        what = "a float64 twin is missing" if record.is_float else _other_values(record.dtype)
        what = {Kind.PARAM: "other weights", Kind.STATE: "changed by training on one side only"}.get(record.kind, what)
        return Comparison(pair, False, False, Difference(float("nan"), 1.0, what))
    if _is_setting(record):
        return _compare(pair, sample.legacy, sample.new, _SETTINGS)
    if record.kind == Kind.INIT:
        return _compare(pair, sample.legacy, sample.new, Tolerance(FIXED, atol=_INITIAL * norms(sample.legacy).max))
    finding = judged(sample, pair, evidence, layers.size)
    difference = measure(sample.legacy, sample.new)
    if sample.sketched:
        difference = replace(difference, metrics=replace(difference.metrics, ulps=None))
    if finding.objection:
        difference = replace(difference, note=finding.objection)
    return Comparison(pair, False, not finding.objection, difference, finding)


def _other_values(dtype: str) -> str:
    return "other bytes, of a text or whole numbers" if dtype == "U8" else "other whole numbers or booleans"


def _is_setting(record: Record) -> bool:
    """Tell the settings of a training (learning rate, norm to clip to) from what is computed with tensors."""
    return record.kind in (Kind.SETTING, Kind.UPDATE) or (record.kind == Kind.CLIP and record.slot != "total_norm")


def accepted(legacy: Tensor, new: Tensor, tolerance: Tolerance) -> bool:
    """Tell whether a piece is within a fixed ``tolerance`` of the expected one; dtypes and shapes are equal."""
    if not legacy.is_floating_point():
        return bool(np.array_equal(legacy.numpy(), new.numpy()))
    one, two = legacy.double().numpy(), new.double().numpy()
    return bool(np.allclose(two, one, tolerance.rtol, tolerance.atol, equal_nan=True))


def measure(legacy: Numbers, new: Numbers) -> Difference:
    """Measure the difference of two tensors of one dtype and shape."""
    return Difference.of(measure_numbers(legacy, new))
