"""Floorings: to which whole number each of several values is rounded down, as the level of a pyramid that a region is of."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from .ranking import closest, ulp
from .rule import INFINITE, Alternative, Margin, Rule


class Flooring(Rule):
    """Each of the ``heights`` [n] rounded down to a whole number, at least ``lowest`` and at most ``highest``."""

    quantity = "height"
    basis = ("heights", "lowest", "highest")
    settings = ("lowest", "highest")

    def rests_on(self, slots: Collection[str]) -> bool:
        return "heights" in slots

    def _misfit(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> str:
        if len(decision) != 1 or any(slot not in basis for slot in self.basis):
            return "is not a rounding of heights"
        (floors,) = decision.values()
        return "" if floors.shape == basis["heights"].shape else f"rounds {len(floors)} heights, not all"

    def _margin(
        self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor], errors: Mapping[str, float]
    ) -> Margin:
        """Return by how much a height lies outside of what is rounded to its number, at most."""
        (floors,) = decision.values()
        heights, allowed = basis["heights"], errors["heights"]
        if not len(floors):
            return Margin(self.quantity, 0.0, allowed)
        lower, upper = _bounds(floors, basis)
        outside = torch.maximum(lower - heights, heights - upper).clamp(min=0.0)
        worst = int(outside.argmax())
        value = outside[worst].item()
        witness = f"rounds number {worst} ({heights[worst].item():.8g}) to {int(floors[worst])}" if value > 0 else ""
        return Margin(self.quantity, value, allowed, witness)

    def _alternatives(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> list[Alternative]:
        (floors,) = decision.values()
        heights = basis["heights"]
        lower, upper = _bounds(floors, basis)
        gaps = torch.minimum(heights - lower, upper - heights)
        if not gaps.isfinite().any():
            return []
        numbers = torch.arange(len(floors))
        return [closest("rounding", self.quantity, gaps, gaps / ulp(heights), numbers, floors, "{} to {}")]


def _bounds(floors: Tensor, basis: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return between what heights are rounded to these numbers; a number outside of the limits is none that fits."""
    floors, lowest, highest = floors.double(), basis["lowest"], basis["highest"]
    inside = (floors >= lowest) & (floors <= highest)
    lower = torch.where(floors == lowest, -INFINITE, floors)
    upper = torch.where(floors == highest, INFINITE, floors + 1.0)
    return torch.where(inside, lower, INFINITE), torch.where(inside, upper, INFINITE)
