"""Tell a tie from a wrong decision.

A decision is a function of numbers that carry rounding errors: its basis. Two sides may decide differently and both
be right, if their bases are closer to a tie than these errors. So the *legacy* decision is tried on the *new* basis:
it is a tie if it breaks the rule of that decision by no more than the error allowed for the basis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_INFINITE = float("inf")
#: What the slots of a basis are called that make it one of a decision; the rest says what a random draw asked for.
DECIDING = ("scores", "cost")
_OF_NMS = ("boxes", "scores", "iou_threshold", "max_num")
#: mmcv shifts boxes by max + 1 before NMS; in [1, 4) a float32 coordinate is rounded by at most this.
SHIFT_ROUNDING = 2.0**-23
#: The solver adds and subtracts costs in float64, so its best matching may be that much of a cost worse per pair.
_SOLVER_ROUNDING = 2.0**-48
_BLOCK = 1024  # boxes whose overlaps are worked out at once


@dataclass(frozen=True)
class Margin:
    """How far a decision is from being right.

    Attributes:
        quantity: what it was decided on: ``score``, ``IoU`` or ``cost``; ``length`` if it is as long as it may not be.
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


def is_of_decision(basis: Iterable[str]) -> bool:
    """Tell by its slots whether a basis is one of a decision."""
    return any(slot in DECIDING for slot in basis)


def margin(decision: Mapping[str, Tensor], basis: Mapping[str, Tensor], error: Mapping[str, float]) -> Margin:
    """Try ``decision`` on ``basis``; its slots tell what kind of decision it is, see :class:`legacy_adapters.taps.Tap`.

    Args:
        decision: of the one side: ``rows`` and ``cols``, ``keep`` or ``indices``.
        basis: of the other side.
        error: largest error accepted in each slot of the basis.

    Returns:
        A margin that is infinite if the two do not fit together.
    """
    misfit = _misfit(decision, basis)
    if misfit:
        return Margin("cost" if "cost" in basis else "score", _INFINITE, 0.0, misfit)
    basis = {slot: tensor.detach().cpu().double() for slot, tensor in basis.items()}
    if "cost" in basis:
        return matching_margin(decision["rows"], decision["cols"], basis["cost"], error["cost"])
    (chosen,) = decision.values()
    if "boxes" in basis:
        return nms_margin(chosen, basis, error["boxes"], error["scores"])
    return ranking_margin(chosen, basis["scores"], error["scores"])


def cut_alike(
    one: Mapping[str, Tensor], two: Mapping[str, Tensor], basis: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Cut a ranking of all ``scores`` of a basis to the length of another decision on them.

    ``sort`` gives all and leaves the cut to its caller, ``topk`` gives what is wanted: the same decision so far.
    """
    if "scores" not in basis or "boxes" in basis or not len(one) == len(two) == 1:
        return one, two
    (first,), (second,) = one.values(), two.values()
    if first.dim() != 1 or second.dim() != 1 or max(len(first), len(second)) != basis["scores"].numel():
        return one, two
    shorter = min(len(first), len(second))
    return {slot: t[:shorter] for slot, t in one.items()}, {slot: t[:shorter] for slot, t in two.items()}


def length_margin(
    decision: Mapping[str, Tensor], expected: Mapping[str, Tensor], basis: Mapping[str, Tensor]
) -> Margin | None:
    """Return by how much ``decision`` is longer or shorter than ``expected``; None if it may be, or is not.

    Only of an NMS does the basis say how many are chosen. Two that are not made of as many lists are no matter of
    length: :func:`margin` says which of them does not fit its basis.
    """
    lengths, wanted = ([chosen.numel() for chosen in lists.values()] for lists in (decision, expected))
    if "boxes" in basis or len(lengths) != len(wanted) or lengths == wanted:
        return None
    one, two = max(zip(lengths, wanted), key=lambda pair: abs(pair[0] - pair[1]))
    return Margin("length", abs(one - two), 0, f"lists {one}, the legacy side {two}")


def _misfit(decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> str:
    """Say what keeps this decision from being tried on this basis; empty if nothing does."""
    if any(chosen.dim() != 1 or chosen.is_floating_point() for chosen in decision.values()):
        return "is not a list of indices"
    if "cost" in basis:
        return "" if set(decision) == {"rows", "cols"} and basis["cost"].dim() == 2 else "is not a matching of a table"
    wanted = _OF_NMS if "boxes" in basis else ("scores",)
    if len(decision) != 1 or any(slot not in basis for slot in wanted) or basis["scores"].dim() != 1:
        return "is not a choice from a list of scores"
    if "boxes" in basis and basis["boxes"].shape != (len(basis["scores"]), 4):
        return "is not a choice of boxes with a score each"
    return ""


def ranking_margin(chosen: Tensor, scores: Tensor, error: float) -> Margin:
    """Return by how much ``chosen`` [k] fails to list the k largest of ``scores`` [n] in descending order.

    ``scores`` have errors up to ``error``.
    """
    if not _is_choice(chosen, len(scores)):
        return Margin("score", _INFINITE, 0.0, f"is not a list of different indices below {len(scores)}")
    if not len(chosen):
        return Margin("score", 0.0, 2 * error)
    picked = scores[chosen]
    rest = torch.ones(len(scores), dtype=torch.bool)
    rest[chosen] = False
    rises, missed = picked[1:] - picked[:-1], scores[rest] - picked.min()
    worst = torch.cat([rises, missed, torch.zeros(1)]).max().item()
    return Margin("score", worst, 2 * error, _ranking_witness(chosen, scores, rises, missed, rest, worst))


def _ranking_witness(chosen: Tensor, scores: Tensor, rises: Tensor, missed: Tensor, rest: Tensor, worst: float) -> str:
    if not worst > 0.0:
        return ""
    if len(rises) and rises.max().item() == worst:
        place = int(rises.argmax())
        one, two = chosen[place : place + 2].tolist()
        return f"lists {_scored(one, scores)} before {_scored(two, scores)}"
    lost, last = int(rest.nonzero()[missed.argmax(), 0]), int(chosen[scores[chosen].argmin()])
    return f"leaves out {_scored(lost, scores)} and takes {_scored(last, scores)}"


def _scored(index: int, scores: Tensor) -> str:
    return f"{index} ({scores[index].item():.8g})"


def _is_choice(chosen: Tensor, length: int) -> bool:
    """Tell whether ``chosen`` are different indices of something that long."""
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < length:
        return False
    return len(chosen.unique()) == len(chosen)


def matching_margin(rows: Tensor, cols: Tensor, cost: Tensor, error: float) -> Margin:
    """Return by how much a matching costs more than the best one; ``cost`` [n, m] has errors up to ``error``."""
    size = min(cost.shape)
    if not len(rows) == len(cols) == size or not (_is_choice(rows, cost.size(0)) and _is_choice(cols, cost.size(1))):
        return Margin("cost", _INFINITE, 0.0, f"is not a matching of {size} rows and columns")
    try:
        from scipy.optimize import linear_sum_assignment  # takes half a second to import

        best = linear_sum_assignment(cost.numpy())
    except ValueError:  # NaN, or infinities that leave no matching
        return Margin("cost", _INFINITE, 0.0, "cannot be tried, for these costs have no best matching")
    if not size:
        return Margin("cost", 0.0, 0.0)
    ours, least = cost[rows, cols], cost[torch.from_numpy(best[0]), torch.from_numpy(best[1])]
    excess = math.fsum([*ours.tolist(), *(-least).tolist()])
    if excess <= size * _SOLVER_ROUNDING * max(ours.abs().max().item(), least.abs().max().item()):
        excess = 0.0
    witness = f"costs {ours.sum().item():.8g}, the best matching {least.sum().item():.8g}" if excess else ""
    return Margin("cost", excess, 2 * size * error, witness)


def nms_margin(keep: Tensor, basis: Mapping[str, Tensor], box_error: float, score_error: float) -> Margin:
    """Return by how much ``keep`` breaks the rule of greedy NMS.

    The kept boxes must come in descending order of score, none may overlap an earlier one by more than the threshold,
    and every other box that ranks before the end must overlap a better kept one by more than the threshold.
    """
    boxes, scores, limit = basis["boxes"], basis["scores"], int(basis["max_num"])
    if not _is_choice(keep, len(boxes)):
        return Margin("score", _INFINITE, 0.0, f"is not a list of different boxes below {len(boxes)}")
    if len(keep) > limit:
        return Margin("score", _INFINITE, 0.0, f"keeps {len(keep)} boxes, more than {limit}")
    if not len(keep):
        return Margin("score", _INFINITE if len(boxes) else 0.0, 0.0, f"keeps none of {len(boxes)}")
    picked = scores[keep]
    rises = picked[1:] - picked[:-1]
    rise = max(rises.max().item(), 0.0) if len(rises) else 0.0
    witness = _ranking_witness(keep, scores, rises, rises[:0], keep, rise)
    order = Margin("score", rise, 2 * score_error, witness)
    if not order.is_tie:
        return order
    rest = torch.ones(len(boxes), dtype=torch.bool)
    rest[keep] = False
    if len(keep) == limit:  # cut: what ranks behind the last one was not looked at
        rest &= scores > picked[-1] + 2 * score_error
    found = [_kept_too_many(keep, basis, box_error)] if len(rises) else []
    for block in rest.nonzero()[:, 0].split(_BLOCK) if rest.any() else ():
        found.append(_dropped_too_many(block, keep, basis, box_error, score_error))
    return max(found, key=lambda one: (max(one.value - one.allowed, 0.0), one.value), default=order)


def _kept_too_many(keep: Tensor, basis: Mapping[str, Tensor], box_error: float) -> Margin:
    """Return the worst overlap of two of the kept boxes, at least two."""
    boxes, threshold = basis["boxes"][keep], basis["iou_threshold"].item()
    overlaps, errors = iou(boxes, boxes), _iou_error(boxes, boxes, box_error + SHIFT_ROUNDING)
    earlier = torch.ones(len(keep), len(keep), dtype=torch.bool).triu(1)
    gaps = torch.where(earlier, overlaps - threshold, -_INFINITE)
    one, two = divmod(_worst(gaps, errors), len(keep))
    gap, allowed = overlaps[one, two].item() - threshold, errors[one, two].item()
    covered = f"{int(keep[one])} covers it with IoU {overlaps[one, two].item():.7g}, threshold {threshold:.7g}"
    witness = f"keeps {int(keep[two])}, though the kept {covered}" if gap > 0 else ""
    return Margin("IoU", max(gap, 0.0), allowed, witness)


def _dropped_too_many(
    dropped: Tensor, keep: Tensor, basis: Mapping[str, Tensor], box_error: float, score_error: float
) -> Margin:
    """Return the worst of the ``dropped`` boxes, the one that better kept boxes overlap least."""
    boxes, scores, threshold = basis["boxes"], basis["scores"], basis["iou_threshold"].item()
    # [dropped, kept]
    overlaps = iou(boxes[dropped], boxes[keep])
    errors = _iou_error(boxes[dropped], boxes[keep], box_error + SHIFT_ROUNDING)
    better = scores[keep][None] >= scores[dropped][:, None] - 2 * score_error
    covered = torch.where(better, overlaps, -_INFINITE)
    best = (covered + errors).argmax(1, keepdim=True)
    gaps, allowed = threshold - covered.gather(1, best)[:, 0], errors.gather(1, best)[:, 0]
    worst = _worst(gaps, allowed)
    gap, most = gaps[worst].item(), threshold - gaps[worst].item()
    reason = f"which no better kept box covers with more than IoU {most:.7g}, threshold {threshold:.7g}"
    if not better[worst].any():
        reason = "although no kept box has a better score"
    witness = f"drops {int(dropped[worst])}, {reason}" if gap > 0 else ""
    return Margin("IoU", max(gap, 0.0), allowed[worst].item(), witness)


def _worst(gaps: Tensor, allowed: Tensor) -> int:
    """Return the flat index of the gap that exceeds what is allowed most; if none does, of the largest."""
    excess = gaps - allowed
    return int(excess.argmax() if bool((excess > 0).any()) else gaps.argmax())


def iou(one: Tensor, two: Tensor) -> Tensor:
    """Return the IoU of all pairs [n, k] of boxes [n, 4] and [k, 4] xyxy; 0 for boxes without area."""
    low = torch.maximum(one[:, None, :2], two[None, :, :2])
    high = torch.minimum(one[:, None, 2:], two[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (one, two)]
    return (inter / (areas[0][:, None] + areas[1][None] - inter)).nan_to_num(0.0)


def _iou_error(one: Tensor, two: Tensor, error: float) -> Tensor:
    """Bound the error of the IoU of all pairs, if every coordinate may be off by ``error``."""
    return (error * iou_slope(one, two, error)).clamp(max=0.5)


def iou_slope(one: Tensor, two: Tensor, least: float) -> Tensor:
    """Bound by how much the IoU of all pairs [n, k] changes per unit that every coordinate is off.

    ``least`` is the extent below which a box counts as that large.
    """
    extents = [(boxes[:, 2:] - boxes[:, :2]).amin(-1).clamp(min=least) for boxes in (one, two)]
    return 8 / torch.minimum(extents[0][:, None], extents[1][None])
