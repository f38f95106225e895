"""Matchings: rows and columns of a table of costs, paired at the least cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from .ranking import ulp
from .rule import INFINITE, Alternative, Margin, Rule, is_choice
from .second_best import second_best

#: The solver adds and subtracts costs in float64, so its best matching may be that much of a cost worse per pair.
_SOLVER_ROUNDING = 2.0**-48


class Matching(Rule):
    """Rows and columns of a table of costs [n, m], paired at the least cost."""

    quantity = "cost"
    basis = ("cost",)

    def rests_on(self, slots: Collection[str]) -> bool:
        return "cost" in slots

    def _misfit(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> str:
        return "" if set(decision) == {"rows", "cols"} and basis["cost"].dim() == 2 else "is not a matching of a table"

    def _margin(
        self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor], errors: Mapping[str, float]
    ) -> Margin:
        """Return by how much the matching costs more than the best one."""
        rows, cols, cost = decision["rows"], decision["cols"], basis["cost"]
        size = min(cost.shape)
        if not len(rows) == len(cols) == size or not (is_choice(rows, cost.size(0)) and is_choice(cols, cost.size(1))):
            return self.broken(f"is not a matching of {size} rows and columns")
        try:
            from scipy.optimize import linear_sum_assignment  # takes half a second to import

            best = linear_sum_assignment(cost.numpy())
        except ValueError:  # NaN, negative infinity, or infinities that leave no matching
            return self.broken("cannot be tried, for these costs have no best matching")
        if not size:
            return Margin(self.quantity, 0.0, 0.0)
        ours, least = cost[rows, cols], cost[torch.from_numpy(best[0]), torch.from_numpy(best[1])]
        excess = math.fsum([*ours.tolist(), *(-least).tolist()])
        if excess <= size * _SOLVER_ROUNDING * max(ours.abs().max().item(), least.abs().max().item()):
            excess = 0.0
        witness = f"costs {ours.sum().item():.8g}, the best matching {least.sum().item():.8g}" if excess else ""
        return Margin(self.quantity, excess, 2 * size * errors["cost"], witness)

    def _alternatives(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> list[Alternative]:
        """Find the matching that costs least but for this one; columns of equal costs count as one."""
        cost = basis["cost"]
        rival = second_best(cost.numpy(), decision["rows"].numpy(), decision["cols"].numpy())
        if rival is None:
            return []
        changed = [*rival.left, *rival.taken]
        text = "1 pair changes" if len(rival.taken) == 1 else f"{len(rival.taken)} pairs change"
        if len(rival.left) == len(rival.taken) == 1:
            (old, _), (new, _) = *rival.left, *rival.taken
            text = f"row {old} moves" if old == new else f"row {new} for {old}"
        if not rival.excess:
            return [Alternative("matching", self.quantity, INFINITE, INFINITE, 1, text)]
        ulps = rival.excess / ulp(torch.stack([cost[pair] for pair in changed])).sum().item()
        return [Alternative("matching", self.quantity, rival.excess, ulps, 0, text)]
