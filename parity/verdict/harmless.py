"""Differences that are none if all else of their phase matches: one computation can be written down in several ways.

- The same numbers in another shape: ``layer(x[None])[0]``, or tokens of all images in one dimension. A draw that asks
  for them so, too. What a call gives may have another shape if what it is given has.
- A ranking that lists more than the other side's and begins as that: ``topk(4)[:3]`` takes the decision of ``topk(3)``.
- A ranking of other scores that an increasing function makes of the other side's, such as logits in place of
  probabilities, and that takes the same.
- A gradient at the border of a module that is another, where those of all parameters are equal: a tensor that is given
  back and used inside as well has the gradient of both uses, a copy of it only its own.

Whether code goes on with another shape, with the rest of a list or with the scores shows in what else is recorded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from legacy_adapters.recording.kinds import DRAWN, RESULT
from legacy_adapters.recording.trace_writer import Record

from ..comparing.compare import Comparison, Tolerance, compare_all, is_reshaped, rankings
from ..comparing.evidence import Evidence
from ..comparing.pairing import Pair
from ..decisions.kinds import is_draw, rule_of
from ..decisions.ranking import Ranking
from ..traces.kinds import FLOW, OF_METHODS, OF_MODULES, OF_TAPS, Kind
from ..traces.trace import Recording, Trace

FLOWING = "another gradient flows between modules; those of all parameters are equal"
INCREASING = "ranked by an increasing function of the other side's scores, and taken alike"
#: What is given where this is made.
_INPUT_OF = {Kind.MODULE_OUT: Kind.MODULE_IN, Kind.OUT_GRAD: Kind.MODULE_IN, Kind.TAP: Kind.BASIS}
#: What shows what code makes of what it has.
_SHOWING = frozenset((Kind.MODULE_OUT, Kind.TAP, Kind.LOSS, Kind.GRAD))
#: What is said of comparisons that are accepted though numbers differ by more than rounding.
NOTES = (FLOWING, INCREASING)
#: Fewer scores may rise with others by chance.
_FEWEST = 8
#: By how much a function of rounded scores may fall, as a share of the largest.
_ROUNDING = 2.0**-20


def harmless(
    comparisons: Iterable[Comparison], legacy: Recording, new: Trace, tolerance: Tolerance, evidence: Evidence | None,
    isolated: bool = False,
) -> dict[int, Comparison]:
    """Return what rejected comparisons are if all else of their phase matches, by their ``id``.

    Args:
        comparisons: of all pairs.
        legacy: the one side.
        new: the other side.
        tolerance: what counts as equal.
        evidence: of a derived tolerance.
        isolated: every module was given its twin's gradients, so that a wrong one shows nowhere else.
    """
    comparisons = tuple(comparisons)
    rejected = [one for one in comparisons if not one.accepted]
    found = {id(one): _same(one) for one in rejected if _begins_alike(one.pair, legacy, new)}
    reshaped = [one for one in rejected if _may_be_reshaped(one.pair)]
    again = compare_all(legacy, new, (one.pair for one in reshaped), tolerance, evidence, any_shape=True)
    equal = {id(one): other for one, other in zip(reshaped, again) if other.accepted}
    given = {one.pair.new.key[:4] for one in reshaped if id(one) in equal}
    for one in reshaped:
        if id(one) in equal and _follows_input(one.pair.new, given):
            found[id(one)] = replace(equal[id(one)], pair=one.pair, decision=None)
    taken = {one.pair.new.key[:4] for one in comparisons if _is_taken(one.pair) and (one.accepted or id(one) in found)}
    for one in rejected:
        record = one.pair.new
        if record.kind != Kind.BASIS or (record.phase, Kind.TAP, record.name, record.call) not in taken:
            continue
        if _is_shape_of_draw(record):
            found[id(one)] = _same(one)
        elif _is_increasing(one.pair, legacy, new, evidence):
            found[id(one)] = _noted(one, INCREASING)
    proven = set() if isolated else _with_equal_gradients(comparisons, found)
    for one in rejected:
        if id(one) not in found and one.pair.new.kind in FLOW and one.pair.new.phase in proven:
            found[id(one)] = _noted(one, FLOWING)
    return found


def with_harmless(
    comparisons: Iterable[Comparison], found: Mapping[int, Comparison], lone: Iterable[str]
) -> tuple[Comparison, ...]:
    """Accept what :func:`harmless` found in phases in which all else matches.

    Args:
        comparisons: of all pairs.
        found: of the same comparisons.
        lone: phases with records that have no twin and no reason for it.
    """
    comparisons = tuple(comparisons)
    followed = _followed(comparisons, found)
    found = {key: one for key, one in found.items() if key in followed}
    telling = (one for one in comparisons if one.pair.new.kind not in OF_METHODS)
    spoilt = {*lone, *(one.pair.new.phase for one in telling if not one.accepted and id(one) not in found)}
    return tuple(
        found[id(one)] if id(one) in found and one.pair.new.phase not in spoilt else one for one in comparisons
    )


def _with_equal_gradients(comparisons: Iterable[Comparison], found: Collection[int]) -> set[str]:
    """Return the phases in which all is equal, the gradients of parameters included, gradients between modules aside."""
    with_gradients, others = set(), set()
    for one in comparisons:
        kind, phase = one.pair.new.kind, one.pair.new.phase
        if kind == Kind.GRAD:
            with_gradients.add(phase)
        is_coarse = kind == Kind.GRAD and one.finding is not None and one.finding.has_jumped
        if kind not in FLOW | OF_METHODS and (is_coarse or not (one.accepted or id(one) in found)):
            others.add(phase)
    return with_gradients - others


def _followed(comparisons: Iterable[Comparison], found: Collection[int]) -> set[int]:
    """Return those of ``found`` after which something that is computed is compared as it is: there their use shows."""
    followed: set[int] = set()
    before: dict[str, list[int]] = defaultdict(list)
    for one in comparisons:
        kind, phase = one.pair.new.kind, one.pair.new.phase
        if id(one) in found:
            before[phase].append(id(one))
        elif kind in _SHOWING:
            followed.update(before.pop(phase, ()))
    return followed


def _noted(comparison: Comparison, note: str) -> Comparison:
    """Accept a comparison, saying in what it differs."""
    return replace(comparison, accepted=True, difference=replace(comparison.difference, note=note), finding=None)


def _same(comparison: Comparison) -> Comparison:
    return replace(comparison, identical=True, accepted=True, difference=None, finding=None, decision=None)


def _begins_alike(pair: Pair, legacy: Recording, new: Trace) -> bool:
    """Tell whether the records are rankings of other lengths, of which the longer begins as the shorter."""
    lists = rankings(legacy, new, pair)
    if lists is None or not all(ranked.dim() for ranked in lists):
        return False
    length = min(ranked.shape[-1] for ranked in lists)
    return torch.equal(*(ranked[..., :length] for ranked in lists))


def _follows_input(record: Record, given: Collection[tuple]) -> bool:
    """Tell whether what a call gives has another shape because what it is given has; ``given`` are such inputs.

    A module that is given the same and gives another shape computes something else.
    """
    kind = None if is_draw(record) else _INPUT_OF.get(record.kind)
    return kind is None or (record.phase, kind, record.name, record.call) in given


def _may_be_reshaped(pair: Pair) -> bool:
    """Tell whether two records hold as many numbers in another shape, and are no results of the whole model."""
    record = pair.new
    is_result = record.name == (RESULT if record.kind in OF_TAPS else "")
    return record.kind in OF_MODULES | OF_TAPS and not is_result and is_reshaped(pair)


def _is_taken(pair: Pair) -> bool:
    """Tell whether a pair is of a single list of what is chosen, or of a draw."""
    return pair.new.kind == Kind.TAP and pair.new.slot in ("indices", DRAWN)


def _is_shape_of_draw(record: Record) -> bool:
    return is_draw(record) and record.slot.rpartition(".")[2] == "shape"


def _is_increasing(pair: Pair, legacy: Recording, new: Trace, evidence: Evidence | None) -> bool:
    """Tell whether one side ranks by an increasing function of what the other ranks by."""
    record = pair.new
    rule = rule_of(new.slots(record.phase, Kind.BASIS, record.name, record.call))
    if record.slot != "scores" or not isinstance(rule, Ranking):
        return False
    theirs = legacy.values_of(*pair.legacy.key[:4]).get(pair.legacy.slot)
    ours = new.tensor(record).reshape(-1).double()
    if theirs is None and evidence is not None:
        kept = evidence.sketch_of_legacy(pair, in_float64=False)
        if kept is not None and kept.is_finite:
            numbers, elements = kept.samples()
            theirs, ours = kept.values[numbers], ours[elements]
    if theirs is None or theirs.numel() != ours.numel() or ours.numel() < _FEWEST:
        return False
    theirs = theirs.reshape(-1).double()
    return _rises(ours, theirs) or _rises(theirs, ours)


def _rises(scores: Tensor, of: Tensor) -> bool:
    """Tell whether ``scores`` [n] are an increasing function of ``of`` [n], and no single number."""
    if not (scores.isfinite().all() and of.isfinite().all()):
        return False
    scores = scores[of.argsort()]
    lowest = float(scores.abs().max()) * _ROUNDING
    return bool(scores.max() > scores.min()) and bool((scores.cummax(0).values - scores).max() <= lowest)
