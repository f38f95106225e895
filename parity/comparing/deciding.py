"""Try every decision that differs, once: the margins are what a derived tolerance accepts and what a report tells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from legacy_adapters.recording.trace_writer import Record

from ..decisions.kinds import rule_of
from ..decisions.rule import Rule
from ..decisions.trials import DERIVED_ERRORS, MEASURED, DecisionDifference, Trial
from ..traces.kinds import Kind
from ..traces.trace import Recording, Trace
from .derived import LOOSE, bound, limits_of
from .evidence import Evidence, Sample, norms
from .pairing import LEGACY, NEW, Pair

_Tensors = Mapping[str, Tensor]


class Decisions:
    """The decisions that two sides took differently.

    Args:
        legacy: the legacy side.
        new: the new side.
        evidence: of a derived tolerance, whose errors then say what is a tie; else it is the measured difference.
    """

    def __init__(self, legacy: Recording, new: Trace, evidence: Evidence | None) -> None:
        self._legacy, self._new, self._evidence = legacy, new, evidence
        self._tried: dict[tuple[str, str, int], DecisionDifference] = {}

    def of(self, pair: Pair) -> DecisionDifference | None:
        """Return how far the decision that a pair of records is of is from a tie; None if they are of none.

        Whether it is accepted is not known yet, for it may have several slots.
        """
        record = pair.new
        if record.kind != Kind.TAP:
            return None
        call = (record.phase, record.name, record.call)
        if call not in self._tried:
            rule = rule_of(self._new.slots(record.phase, Kind.BASIS, record.name, record.call))
            if rule is None:
                return None
            self._tried[call] = self._difference(rule, pair)
        return self._tried[call]

    def _difference(self, rule: Rule, pair: Pair) -> DecisionDifference:
        """Try both decisions on the new side's numbers, and the new one on the legacy side's.

        The legacy decision must be explained by the errors of the basis. So must the new one: else a side that decides
        wrongly on the right numbers would pass. Under autocast such errors may be as large as the numbers and explain
        anything, so that the new side's own decision is given no more room there than in float32.
        """
        theirs, numbers = _values(self._legacy, pair.legacy, Kind.BASIS), _values(self._new, pair.new, Kind.BASIS)
        evidence = self._evidence
        obstacle, gaps = _obstacle(theirs, numbers) if theirs or evidence is None else "", {}
        if theirs and not obstacle:
            gaps = _gaps(theirs, numbers)
            if not all(math.isfinite(gap) for gap in gaps.values()):
                obstacle = "not tried: what it rests on is NaN or infinite on one side only"
        difference = DecisionDifference(
            pair.new.phase, pair.new.name, pair.new.call, False, (), gaps,
            MEASURED if evidence is None else DERIVED_ERRORS, rule, obstacle,
        )  # fmt: skip
        if obstacle and evidence is None:
            return difference
        legacy = _values(self._legacy, pair.legacy, Kind.TAP) if evidence is None else evidence.decision(pair.legacy)
        legacy, new = rule.aligned(legacy, _values(self._new, pair.new, Kind.TAP), numbers)
        other_length = rule.length_margin(new, legacy)
        if other_length is not None:
            trials = (Trial(NEW, LEGACY, other_length),)
        else:
            errors, own_errors = gaps, dict.fromkeys(gaps, 0.0)  # on its own numbers a decision has no excuse
            if evidence is not None:
                errors, own_errors = (_basis_errors(evidence, pair, own) for own in (False, True))
            trials = (
                Trial(NEW, NEW, rule.margin(new, numbers, own_errors)),
                Trial(LEGACY, NEW, rule.margin(legacy, numbers, errors)),
            )
            if theirs and not obstacle:
                trials += (Trial(NEW, LEGACY, rule.margin(new, theirs, errors)),)
        counting = [trial.margin for trial in trials[1::-1]]  # of two that are no ties, the legacy decision's is told
        ruling = None if evidence is None else min(counting, key=lambda margin: margin.is_tie)
        return replace(difference, trials=() if obstacle else trials, ruling=ruling)


def _values(side: Recording, record: Record, kind: Kind) -> _Tensors:
    return side.values_of(record.phase, kind, record.name, record.call)


def _obstacle(legacy: _Tensors, new: _Tensors) -> str:
    """Say why the sides' decisions cannot be tried on each other's numbers; empty if they can."""
    if set(legacy) != set(new):
        return "not tried: the sides record different things that it rests on"
    for slot, tensor in legacy.items():
        if tensor.shape != new[slot].shape:
            shapes = f"{list(tensor.shape)} on the legacy side and {list(new[slot].shape)} on the new one"
            return f"not tried: its {slot} are {shapes}"
    for slot, tensor in legacy.items():
        if tensor.is_floating_point() and tensor.any() and torch.equal(tensor, -new[slot]):
            return f"not tried: it turns its {slot} round: one side takes the largest first, the other the smallest"
    return ""


def _gaps(legacy: _Tensors, new: _Tensors) -> dict[str, float]:
    """Return the largest difference in each slot; infinite where a side has NaN or another infinity."""
    gaps = {}
    for slot, one in legacy.items():
        one, two = one.double(), new[slot].double()
        same = (one == two) | (one.isnan() & two.isnan())
        gap = torch.where(same, 0.0, (one - two).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
        gaps[slot] = gap.max().item() if gap.numel() else 0.0
    return gaps


def _basis_errors(evidence: Evidence, pair: Pair, own: bool) -> dict[str, float]:
    """Return the largest error accepted in each slot of the new side's basis of one decision, a pair of tap records.

    ``own`` is for a decision on the side's own numbers.
    """
    errors = {}
    for slot, record in evidence.new.slots(pair.new.phase, Kind.BASIS, pair.new.name, pair.new.call).items():
        twin = replace(record, name=pair.legacy.name, call=pair.legacy.call)
        sample = evidence.sample(Pair(twin, record))
        errors[slot] = 0.0 if sample is None else _basis_error(sample, own)
    return errors


def _basis_error(sample: Sample, own: bool) -> float:
    """Return the bound of a sample, as far as it is one of rounding: a larger one explains no decision, either."""
    loose = LOOSE if own else limits_of(sample.amp).loose
    return min(bound(sample).max, loose * norms(sample.reference).max)
