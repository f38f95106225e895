"""Say of every decision that differs how far it is from a tie, whatever the tolerance.

A decision of one side is *tried* on the numbers of the other: by how much does it break its rule there? Little, beside
the difference of those numbers, smells of a tie; much, or on equal numbers, of a wrong rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..comparing.compare import Comparison
from ..comparing.derived import basis_errors
from ..comparing.evidence import Evidence
from ..comparing.pairing import LEGACY, NEW, Pair
from ..decisions.ties import Margin, cut_alike, is_of_decision, length_margin, margin
from ..traces.kinds import Kind
from ..traces.trace import Recording, Trace

#: Slots of a basis that are part of the rule, not numbers it is applied to.
RULE_SLOTS = ("iou_threshold", "max_num")
MEASURED, DERIVED_ERRORS = "measured difference", "derived error"


@dataclass(frozen=True)
class Trial:
    """A decision tried on numbers.

    Attributes:
        decision: the side that took it.
        numbers: the side that computed them.
        margin: by how much the one breaks its rule on the other.
    """

    decision: str
    numbers: str
    margin: Margin


@dataclass(frozen=True)
class DecisionDifference:
    """A decision that the sides took differently.

    Attributes:
        phase: of the run.
        name: of the tap.
        call: of the tap.
        accepted: as a tie, which only a derived tolerance does.
        trials: the new decision on its own numbers, the legacy one on those of the new side, and, where these are at
            hand, the new one on those of the legacy side; none if there is an obstacle.
        gaps: largest difference between the sides in each slot of the basis; empty where the legacy side's numbers are
            not at hand.
        allowance: what :attr:`Margin.allowed` rests on: the ``measured difference`` of the numbers between the sides,
            or their ``derived error``.
        obstacle: why the decisions cannot be tried on each other's numbers; else empty.
    """

    phase: str
    name: str
    call: int
    accepted: bool
    trials: tuple[Trial, ...]
    gaps: Mapping[str, float]
    allowance: str
    obstacle: str = ""

    @property
    def worst(self) -> Trial | None:
        """Return the trial that is farthest from a tie; what crosses sides before what does not."""
        return max(self.trials, key=_badness, default=None)

    @property
    def is_explained(self) -> bool:
        """Tell whether the difference of the numbers explains the other decision."""
        return bool(self.trials) and all(trial.margin.is_tie for trial in self.trials)

    @property
    def reading(self) -> str:
        """Say in a few words what the margins mean."""
        if self.obstacle:
            return self.obstacle
        rules = [f"{slot} differs by {self.gaps[slot]:.2g}" for slot in RULE_SLOTS if self.gaps.get(slot)]
        if any(not trial.margin.is_tie for trial in self.trials if trial.decision == trial.numbers):
            return "no tie: it breaks the rule on its own numbers"
        if rules:
            return f"no tie: {' and '.join(rules)}"
        if not self.is_explained:
            return "no tie"
        if self.gaps and not any(self.gaps.values()):
            return "an exact tie: equal numbers allow either"
        return "a tie" if self.accepted else "explained by the difference of its numbers"


def _badness(trial: Trial) -> tuple[float, bool, bool]:
    over = trial.margin.value - trial.margin.allowed
    over = math.inf if math.isnan(over) else max(over, 0.0)
    return over, trial.numbers == LEGACY, trial.decision == LEGACY


def differing_decisions(
    legacy: Recording, new: Trace, comparisons: Sequence[Comparison], evidence: Evidence | None = None
) -> tuple[DecisionDifference, ...]:
    """Examine every decision that is not the same on both sides, in the order of ``comparisons``.

    Args:
        legacy: the legacy side.
        new: the new side.
        comparisons: of their records.
        evidence: of a derived tolerance, whose errors then say what is a tie; else it is the measured difference.
    """
    differing: dict[tuple[str, str, int], list[Comparison]] = {}
    for comparison in comparisons:
        record = comparison.pair.new
        if record.kind == Kind.TAP and not comparison.identical:
            basis = new.slots(record.phase, Kind.BASIS, record.name, record.call)
            if is_of_decision(basis):
                differing.setdefault((record.phase, record.name, record.call), []).append(comparison)
    return tuple(
        _examined(found[0].pair, all(c.accepted for c in found), legacy, new, evidence) for found in differing.values()
    )


def _examined(
    pair: Pair, accepted: bool, legacy: Recording, new: Trace, evidence: Evidence | None
) -> DecisionDifference:
    phase, name, call = pair.new.phase, pair.new.name, pair.new.call
    sides = ((LEGACY, legacy, pair.legacy), (NEW, new, pair.new))
    decisions, numbers = (
        {side: of.values_of(phase, kind, record.name, record.call) for side, of, record in sides}
        for kind in (Kind.TAP, Kind.BASIS)
    )
    decisions[LEGACY], decisions[NEW] = cut_alike(decisions[LEGACY], decisions[NEW], numbers[NEW])
    obstacle = _obstacle(numbers[LEGACY], numbers[NEW]) if numbers[LEGACY] else ""
    gaps = _gaps(numbers[LEGACY], numbers[NEW]) if numbers[LEGACY] and not obstacle else {}
    if not all(math.isfinite(gap) for gap in gaps.values()):
        obstacle = "not tried: what it rests on is NaN or infinite on one side only"
    errors, own_errors = gaps, dict.fromkeys(gaps, 0.0)  # on its own numbers a decision has no excuse
    if evidence is not None:
        errors, own_errors = basis_errors(evidence, pair), basis_errors(evidence, pair, own=True)
    trials = [] if obstacle else _trials(decisions, numbers, errors, own_errors)
    allowance = MEASURED if evidence is None else DERIVED_ERRORS
    return DecisionDifference(phase, name, call, accepted, tuple(trials), gaps, allowance, obstacle)


def _trials(
    decisions: Mapping[str, Mapping[str, Tensor]],
    numbers: Mapping[str, Mapping[str, Tensor]],
    errors: Mapping[str, float],
    own_errors: Mapping[str, float],
) -> list[Trial]:
    other_length = length_margin(decisions[NEW], decisions[LEGACY], numbers[NEW])
    if other_length is not None:
        return [Trial(NEW, LEGACY, other_length)]
    trials = [Trial(NEW, NEW, margin(decisions[NEW], numbers[NEW], own_errors))]
    trials.append(Trial(LEGACY, NEW, margin(decisions[LEGACY], numbers[NEW], errors)))
    if numbers[LEGACY]:
        trials.append(Trial(NEW, LEGACY, margin(decisions[NEW], numbers[LEGACY], errors)))
    return trials


def _obstacle(legacy: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> str:
    if set(legacy) != set(new):
        return "not tried: the sides record different things that it rests on"
    for slot, tensor in legacy.items():
        if tensor.shape != new[slot].shape:
            shapes = f"{list(tensor.shape)} on the legacy side and {list(new[slot].shape)} on the new one"
            return f"not tried: its {slot} are {shapes}"
    return ""


def _gaps(legacy: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the largest difference in each slot; infinite where a side has NaN or another infinity."""
    gaps = {}
    for slot, one in legacy.items():
        one, two = one.double(), new[slot].double()
        same = (one == two) | (one.isnan() & two.isnan())
        gap = torch.where(same, 0.0, (one - two).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
        gaps[slot] = gap.max().item() if gap.numel() else 0.0
    return gaps
