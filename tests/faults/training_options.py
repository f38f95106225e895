"""Faults in the choice of an optimizer, its options, its wrapper and the way gradients are clipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .fault import TRAINING, Fault
from .ground import STEPS
from .planting import wrap

Apply = Callable[[Any], None]
_OPTIMIZER, _WRAPPER, _CLIPPING = "the optimizer", "the optimizer wrapper", "gradient clipping"


def _fault(name: str, kind: str, where: str, apply: Apply, says: str = "") -> Fault:
    return Fault(name, kind, where, apply, place=TRAINING, says=says, setting=STEPS)


def _option(**values: Any) -> Apply:
    """Set options of all groups and their defaults."""

    def apply(made: Any) -> None:
        made.optimizer.defaults.update(values)
        for group in made.optimizer.param_groups:
            group.update(values)

    return apply


def _of_class(make: Callable[[list[dict]], torch.optim.Optimizer]) -> Apply:
    """Put another optimizer in place of the right one, with the same groups, which the schedules go on to change."""

    def apply(made: Any) -> None:
        groups = made.optimizer.param_groups
        other = make(groups)
        other.param_groups = groups
        made.wrapper.optimizer = made.optimizer = other

    return apply


class _AdamWithLargeSteps(torch.optim.AdamW):
    """AdamW of another package: steps as large as those of the sign."""

    def step(self, closure: Any = None) -> Any:
        before = [(p, p.detach().clone()) for group in self.param_groups for p in group["params"]]
        super().step(closure)
        with torch.no_grad():
            for parameter, start in before:
                parameter.copy_(start + (parameter - start) * 1.001)


def _accumulating(made: Any) -> None:
    made.wrapper._accumulative_counts = 2


def _loss_scaled(right: Callable, total: Tensor, *args: Any, **kwargs: Any) -> Any:
    return right(total * 2, *args, **kwargs)


def _second_backward(right: Callable, total: Tensor, *args: Any, **kwargs: Any) -> Any:
    right(total, *args, **kwargs, retain_graph=True)
    return right(total, *args, **kwargs)


def _around_wrapper(method: str, change: Callable) -> Apply:
    return lambda made: wrap(made.wrapper, method, change)


def _clipped_before(change: Callable[[list[Tensor]], None]) -> Apply:
    """Clip in another way instead of by the norm of all gradients."""

    def clip(right: Callable, parameters: Any, **kwargs: Any) -> Any:
        change(list(parameters))

    return lambda made: wrap(made.wrapper, "clip_func", clip)


def _by_value(parameters: list[Tensor]) -> None:
    torch.nn.utils.clip_grad_value_(parameters, 0.1)


def _each_by_itself(parameters: list[Tensor]) -> None:
    for parameter in parameters:
        torch.nn.utils.clip_grad_norm_([parameter], 0.1)


def _by_norm_1(made: Any) -> None:
    made.wrapper.clip_grad_kwargs.update(norm_type=1)


FAULTS = (
    _fault("amsgrad", "optimizer option", _OPTIMIZER, _option(amsgrad=True), "`amsgrad`"),
    _fault("maximize", "optimizer option", _OPTIMIZER, _option(maximize=True), "`maximize`"),
    _fault("decay_not_decoupled", "optimizer option", _OPTIMIZER, _option(decoupled_weight_decay=False),
           "`decoupled_weight_decay`"),
    _fault("adam_for_adamw", "optimizer class", _OPTIMIZER,
           _of_class(lambda groups: torch.optim.Adam(groups, lr=2e-4, weight_decay=0.05)), "Adam"),
    _fault("sgd_for_adamw", "optimizer class", _OPTIMIZER,
           _of_class(lambda groups: torch.optim.SGD(groups, lr=2e-4, momentum=0.9, weight_decay=0.05)), "SGD"),
    _fault("other_adamw", "optimizer class", _OPTIMIZER,
           _of_class(lambda groups: _AdamWithLargeSteps(groups, lr=2e-4, weight_decay=0.05))),
    _fault("nadam_for_adamw", "optimizer class", _OPTIMIZER,
           _of_class(lambda groups: torch.optim.NAdam(groups, lr=2e-4, weight_decay=0.05)), "NAdam"),
    _fault("accumulates_two_steps", "optimizer wrapper", _WRAPPER, _accumulating, "accumul"),
    _fault("backward_twice", "optimizer wrapper", _WRAPPER, _around_wrapper("backward", _second_backward)),
    _fault("loss_doubled_by_wrapper", "optimizer wrapper", _WRAPPER, _around_wrapper("scale_loss", _loss_scaled)),
    _fault("clipped_by_norm_1", "way of clipping", _CLIPPING, _by_norm_1, "norm_type"),
    _fault("clipped_by_value", "way of clipping", _CLIPPING, _clipped_before(_by_value)),
    _fault("each_clipped_by_itself", "way of clipping", _CLIPPING, _clipped_before(_each_by_itself)),
)  # fmt: skip
