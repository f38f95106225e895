"""What all kinds of decisions have in common: what they are made of, their margin, how else they could have fallen.

A decision is a function of numbers that carry rounding errors: its basis. Two sides may decide differently and both
be right, if their bases are closer to a tie than these errors. So a decision of one side is tried on the basis of the
other: it is a tie if it breaks its rule there by no more than the error allowed for the basis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

INFINITE = float("inf")


@dataclass(frozen=True)
class Margin:
    """How far a decision is from being right.

    Attributes:
        quantity: what it was decided on: ``score``, ``IoU``, ``cost`` or ``height``; ``length`` if it is as long as it may not be.
        value: by how much the decision breaks its rule, in units of that quantity; 0 if it does not.
        allowed: how much of that its basis' errors explain.
        witness: where it breaks the rule most, for a person, e.g. ``lists 3 (0.25) before 7 (0.5)``; else empty.
    """

    quantity: str
    value: float
    allowed: float
    witness: str = field(default="", compare=False)

    @property
    def is_tie(self) -> bool:
        return self.value <= self.allowed

    def __str__(self) -> str:
        kind = "tie" if self.is_tie else "no tie"
        return f"{kind}: {self.quantity} margin {self.value:.2g}, error {self.allowed:.2g}"


@dataclass(frozen=True)
class Alternative:
    """One way in which a decision could have fallen otherwise, where it came closest.

    Attributes:
        name: ``order`` (two neighbours in the list swap), ``cut`` (the last one in the list and the best one out of
            it), ``overlap`` (a box is suppressed or not), ``rival`` (which of two overlapping boxes is kept),
            ``matching`` (another one), ``rounding`` (to the next whole number), ``threshold`` (an overlap is on the
            other side of one) or ``best`` (another box is an object's best).
        quantity: what decides: ``score``, ``IoU``, ``cost`` or ``height``.
        gap: smallest gap above 0, in units of the quantity; infinite if there is none.
        ulps: by how many units in the last place (float32) each number that decided would have to be off to close the
            gap: the scores of the two, the costs of all pairs that change; of an overlap at least so many, of every
            coordinate.
        exact: how often the gap is 0.
        where: the indices, for a person.
    """

    name: str
    quantity: str
    gap: float
    ulps: float
    exact: int
    where: str


class DecisionKind(ABC):
    """A kind of what taps record, told by the slots of what it rests on.

    Attributes:
        title: what such records are called in a table.
    """

    title: ClassVar[str]

    @abstractmethod
    def rests_on(self, slots: Collection[str]) -> bool:
        """Tell whether a basis of these slots is one of this kind."""


class Rule(DecisionKind):
    """A kind of decision that follows a rule, which can be tried on numbers.

    Attributes:
        quantity: what it is decided on.
        basis: slots of the numbers and settings that it rests on.
        settings: those slots of the basis that are part of the rule, not numbers it is applied to.
        options: further slots that a basis may have.
    """

    title = "decisions"
    quantity: ClassVar[str]
    basis: ClassVar[tuple[str, ...]]
    settings: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]] = ()

    def margin(
        self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor], errors: Mapping[str, float]
    ) -> Margin:
        """Try ``decision`` on ``basis``.

        Args:
            decision: of the one side, by slot.
            basis: of the other side, by slot.
            errors: largest error accepted in each slot of the basis.

        Returns:
            A margin that is infinite if the two do not fit together.
        """
        if any(chosen.dim() != 1 or chosen.is_floating_point() for chosen in decision.values()):
            return self.broken("is not a list of indices")
        misfit = self._misfit(decision, basis)
        return self.broken(misfit) if misfit else self._margin(decision, _doubles(basis), errors)

    def alternatives(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> list[Alternative]:
        """Return the ways in which a decision could have fallen otherwise; it must follow its rule on ``basis``."""
        return self._alternatives(decision, _doubles(basis))

    def broken(self, witness: str) -> Margin:
        """Return the margin of a decision that no error explains."""
        return Margin(self.quantity, INFINITE, 0.0, witness)

    def aligned(
        self, one: Mapping[str, Tensor], two: Mapping[str, Tensor], basis: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Return two decisions on one basis as far as they can be compared."""
        return one, two

    def length_margin(self, decision: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Margin | None:
        """Return by how much ``decision`` is longer or shorter than ``expected``; None if it may be, or is not.

        Two that are not made of as many lists are no matter of length: :meth:`margin` says which of them does not fit
        its basis.
        """
        lengths, wanted = ([chosen.numel() for chosen in lists.values()] for lists in (decision, expected))
        if len(lengths) != len(wanted) or lengths == wanted:
            return None
        one, two = max(zip(lengths, wanted), key=lambda pair: abs(pair[0] - pair[1]))
        return Margin("length", abs(one - two), 0, f"lists {one}, the legacy side {two}")

    @abstractmethod
    def _misfit(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> str:
        """Say what keeps this decision from being tried on this basis; empty if nothing does."""

    @abstractmethod
    def _margin(
        self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor], errors: Mapping[str, float]
    ) -> Margin:
        """Try a decision that fits its ``basis``, which is in float64."""

    @abstractmethod
    def _alternatives(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> list[Alternative]:
        """Examine a decision that follows its rule on ``basis``, which is in float64."""


def _doubles(basis: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {slot: tensor.detach().cpu().double() for slot, tensor in basis.items()}


def is_choice(chosen: Tensor, length: int) -> bool:
    """Tell whether ``chosen`` are different indices of something that long."""
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < length:
        return False
    return len(chosen.unique()) == len(chosen)


def unchosen(chosen: Tensor, length: int) -> Tensor:
    """Return the other indices [length - k] of something that long, from 0 on."""
    rest = torch.ones(length, dtype=torch.bool)
    rest[chosen] = False
    return rest.nonzero()[:, 0]
