"""Tell a tie from a wrong decision.

A decision is a function of numbers that carry rounding errors: its basis. Two sides may decide differently and both
be right, if their bases are closer to a tie than these errors. So the *legacy* decision is tried on the *new* basis:
it is a tie if it breaks the rule of that decision by no more than the error allowed for the basis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_INFINITE = float("inf")
#: mmcv shifts boxes by max + 1 before NMS; in [1, 4) a float32 coordinate is rounded by at most this.
_SHIFT_ROUNDING = 2.0**-23


@dataclass(frozen=True)
class Margin:
    """How far a decision is from being right.

    Attributes:
        quantity: what it was decided on: ``score``, ``IoU`` or ``cost``.
        value: by how much the decision breaks its rule, in units of that quantity; 0 if it does not.
        allowed: how much of that its basis' errors explain.
    """

    quantity: str
    value: float
    allowed: float

    @property
    def is_tie(self) -> bool:
        return self.value <= self.allowed

    def __str__(self) -> str:
        kind = "tie" if self.is_tie else "no tie"
        return f"{kind}: {self.quantity} margin {self.value:.2g}, error {self.allowed:.2g}"


def margin(decision: Mapping[str, Tensor], basis: Mapping[str, Tensor], error: Mapping[str, float]) -> Margin:
    """Try ``decision`` on ``basis``; its slots tell what kind of decision it is, see :class:`legacy_adapters.taps.Tap`.

    Args:
        decision: of the one side: ``rows`` and ``cols``, ``keep`` or ``indices``.
        basis: of the other side.
        error: largest error accepted in each slot of the basis.
    """
    basis = {slot: tensor.detach().cpu().double() for slot, tensor in basis.items()}
    if "cost" in basis:
        return matching_margin(decision["rows"], decision["cols"], basis["cost"], error["cost"])
    (chosen,) = decision.values()
    if "boxes" in basis:
        return nms_margin(chosen, basis, error["boxes"], error["scores"])
    return Margin("score", ranking_regret(chosen, basis["scores"]), 2 * error["scores"])


def ranking_regret(chosen: Tensor, scores: Tensor) -> float:
    """Return by how much ``chosen`` [k] fails to list the k largest of ``scores`` [n] in descending order."""
    if not _is_choice(chosen, len(scores)):
        return _INFINITE
    if not len(chosen):
        return 0.0
    picked = scores[chosen]
    rest = torch.ones(len(scores), dtype=torch.bool)
    rest[chosen] = False
    rises = picked[1:] - picked[:-1]
    missed = scores[rest] - picked.min()
    return torch.cat([rises, missed, torch.zeros(1)]).max().item()


def _is_choice(chosen: Tensor, length: int) -> bool:
    """Tell whether ``chosen`` are different indices of something that long."""
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < length:
        return False
    return len(chosen.unique()) == len(chosen)


def matching_margin(rows: Tensor, cols: Tensor, cost: Tensor, error: float) -> Margin:
    """Return by how much a matching costs more than the best one; ``cost`` [n, m] has errors up to ``error``."""
    size = min(cost.shape)
    if not len(rows) == len(cols) == size or not (_is_choice(rows, cost.size(0)) and _is_choice(cols, cost.size(1))):
        return Margin("cost", _INFINITE, 0.0)
    best = linear_sum_assignment(cost.numpy())
    excess = cost[rows, cols].sum() - cost[torch.from_numpy(best[0]), torch.from_numpy(best[1])].sum()
    return Margin("cost", max(excess.item(), 0.0), 2 * size * error)


def nms_margin(keep: Tensor, basis: Mapping[str, Tensor], box_error: float, score_error: float) -> Margin:
    """Return by how much ``keep`` breaks the rule of greedy NMS.

    The kept boxes must come in descending order of score, none may overlap an earlier one by more than the threshold,
    and every other box that ranks before the end must overlap a better kept one by more than the threshold.
    """
    boxes, scores, threshold = basis["boxes"], basis["scores"], basis["iou_threshold"].item()
    if not _is_choice(keep, len(boxes)) or len(keep) > int(basis["max_num"]):
        return Margin("score", _INFINITE, 0.0)
    if not len(keep):
        return Margin("score", _INFINITE if len(boxes) else 0.0, 0.0)
    picked = scores[keep]
    order = Margin(
        "score", max((picked[1:] - picked[:-1]).max().item(), 0.0) if len(keep) > 1 else 0.0, 2 * score_error
    )
    if not order.is_tie:
        return order
    # [n, k]
    overlaps, errors = _iou(boxes, boxes[keep]), _iou_error(boxes, boxes[keep], box_error + _SHIFT_ROUNDING)
    better = picked[None] >= scores[:, None] - 2 * score_error
    rest = torch.ones(len(boxes), dtype=torch.bool)
    rest[keep] = False
    if len(keep) == int(basis["max_num"]):  # cut: what ranks behind the last one was not looked at
        rest &= scores > picked[-1] + 2 * score_error
    covered = torch.where(better, overlaps, -_INFINITE)
    best = (covered + errors).argmax(1, keepdim=True)
    earlier = torch.ones(len(keep), len(keep), dtype=torch.bool).triu(1)
    breaks = torch.cat([(threshold - covered.gather(1, best))[rest, 0], (overlaps[keep] - threshold)[earlier]])
    allowed = torch.cat([errors.gather(1, best)[rest, 0], errors[keep][earlier]])
    if not len(breaks):
        return order
    worst = (breaks - allowed).argmax()
    return Margin("IoU", max(breaks[worst].item(), 0.0), allowed[worst].item())


def _iou(one: Tensor, two: Tensor) -> Tensor:
    """Return the IoU of all pairs [n, k] of boxes [n, 4] and [k, 4] xyxy."""
    low = torch.maximum(one[:, None, :2], two[None, :, :2])
    high = torch.minimum(one[:, None, 2:], two[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (one, two)]
    return (inter / (areas[0][:, None] + areas[1][None] - inter)).nan_to_num(0.0)


def _iou_error(one: Tensor, two: Tensor, error: float) -> Tensor:
    """Bound the error of the IoU of all pairs, if every coordinate may be off by ``error``."""
    extents = [(boxes[:, 2:] - boxes[:, :2]).amin(-1).clamp(min=error) for boxes in (one, two)]
    return (8 * error / torch.minimum(extents[0][:, None], extents[1][None])).clamp(max=0.5)
