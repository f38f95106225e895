"""Faults in the weights that both sides are given: they say nothing, so that everything would match."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .fault import CHECKPOINT, INCOMPARABLE, Fault

State = dict[str, Tensor]
_BRANCHES = ("cls_branches", "reg_branches")


def _fault(name: str, kind: str, where: str, apply: Callable[[State], None]) -> Fault:
    return Fault(name, kind, where, apply, place=CHECKPOINT, outcome=INCOMPARABLE, setting="batch")


def _all(change: Callable[[Tensor], Tensor], *parts: str) -> Callable[[State], None]:
    """Change all floating tensors, or those whose names hold one of ``parts``."""

    def apply(state: State) -> None:
        for name, tensor in state.items():
            if tensor.is_floating_point() and (not parts or any(part in name for part in parts)):
                state[name] = change(tensor).contiguous()

    return apply


FAULTS = (
    _fault("weights_all_one_number", "constant weights", "Degenerate", _all(lambda x: torch.full_like(x, 0.01))),
    _fault("weights_all_zero", "constant weights", "Degenerate", _all(torch.zeros_like)),
    _fault("class_branches_zero", "constant weights", "scores", _all(torch.zeros_like, "cls_branches")),
    _fault("weights_not_finite", "weights that are not finite", "finite",
           _all(lambda x: torch.full_like(x, float("nan")), "bbox_head")),
)  # fmt: skip
