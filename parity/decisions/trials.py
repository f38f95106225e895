"""Decisions of one side tried on the numbers of the other: what the margins say of a decision that differs.

By how much does a decision of one side break its rule on the other's numbers? Little, beside the difference of those
numbers, smells of a tie; much, or on equal numbers, of a wrong rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from legacy_adapters.ground.names import LEGACY

from .rule import Margin, Rule

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
        rule: that the decision follows.
        obstacle: why the decisions cannot be tried on each other's numbers; else empty.
        ruling: under a derived tolerance the margin that counts: the worse of both decisions on the new side's numbers;
            else None.
    """

    phase: str
    name: str
    call: int
    accepted: bool
    trials: tuple[Trial, ...]
    gaps: Mapping[str, float]
    allowance: str
    rule: Rule
    obstacle: str = ""
    ruling: Margin | None = None

    @property
    def call_key(self) -> tuple[str, str, int]:
        """Tell the decision from others."""
        return self.phase, self.name, self.call

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
        rules = [f"{slot} differs by {self.gaps[slot]:.2g}" for slot in self.rule.settings if self.gaps.get(slot)]
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
