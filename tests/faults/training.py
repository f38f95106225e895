"""Faults in training only: optimizer, gradient clipping, schedule. Everything in one forward and backward is right.

``apply`` takes what an adapter's ``training`` makes, with ``model``, ``wrapper`` (mmengine's, of the optimizer),
``optimizer``, ``schedulers`` and ``advance(epoch_ended)``. They show within 4 steps of epochs of 2 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .fault import TRAINING, Fault
from .ground import STEPS
from .planting import wrap

Apply = Callable[[Any], None]
_OPTIMIZER, _SCHEDULE, _CLIPPING = "the optimizer", "the schedule", "gradient clipping"
_WRAPPER = "the optimizer wrapper"


def _fault(name: str, kind: str, where: str, apply: Apply, says: str = "") -> Fault:
    return Fault(name, kind, where, apply, place=TRAINING, says=says, setting=STEPS)


def _all_groups(**values: Any) -> Apply:
    def apply(made: Any) -> None:
        for group in made.optimizer.param_groups:
            group.update(values)

    return apply


def _group_of(made: Any, name: str) -> dict[str, Any]:
    parameter = made.model.get_parameter(name)
    return next(group for group in made.optimizer.param_groups if any(p is parameter for p in group["params"]))


def _without_decay(made: Any) -> None:
    _group_of(made, "query_map.weight")["weight_decay"] = 0.0


def _backbone_as_fast_as_the_rest(made: Any) -> None:
    backbone = {id(parameter) for parameter in made.model.backbone.parameters()}
    for index, group in enumerate(made.optimizer.param_groups):
        if id(group["params"][0]) in backbone:
            group["lr"], group["initial_lr"] = group["lr"] * 10, group["initial_lr"] * 10
            for schedule in made.schedulers:
                schedule.base_values[index] *= 10


def _parameters_exchanged(made: Any) -> None:
    """Put a parameter of the backbone and one of the head in each other's group."""
    one, two = (_group_of(made, name) for name in ("backbone.layer2.0.conv1.weight", "query_map.weight"))
    one["params"], two["params"] = two["params"], one["params"]


def _left_out(made: Any) -> None:
    group = _group_of(made, "level_embed")
    made.optimizer.param_groups.remove(group)


def _stepping(change: Callable[[Any, list[tuple[Tensor, Tensor, dict]]], None]) -> Apply:
    """Change the parameters behind the step; ``change`` gets them with their values before and their groups."""

    def apply(made: Any) -> None:
        def step(right: Callable, *args: Any, **kwargs: Any) -> Any:
            groups = made.optimizer.param_groups
            before = [(p, p.detach().clone(), g) for g in groups for p in g["params"] if p.grad is not None]
            result = right(*args, **kwargs)
            with torch.no_grad():
                change(made.optimizer, before)
            return result

        wrap(made.optimizer, "step", step)

    return apply


def _no_bias_correction(optimizer: Any, before: list[tuple[Tensor, Tensor, dict]]) -> None:
    for parameter, start, group in before:
        state = optimizer.state[parameter]
        move = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + group["eps"])
        parameter.copy_(start * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * move)


def _decay_in_the_gradient(made: Any) -> None:
    """Let the average gradients see the weight decay, as Adam does and AdamW does not."""

    def step(right: Callable, *args: Any, **kwargs: Any) -> Any:
        for group in made.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach(), alpha=group["weight_decay"])
        return right(*args, **kwargs)

    wrap(made.optimizer, "step", step)


def _one_parameter_ascends(optimizer: Any, before: list[tuple[Tensor, Tensor, dict]]) -> None:
    parameter, start, _ = before[-1]
    parameter.copy_(2 * start - parameter)


def _after_step(number: int, change: Callable[[Any], None]) -> Apply:
    def apply(made: Any) -> None:
        steps: list[bool] = []

        def advance(right: Callable, epoch_ended: bool) -> None:
            steps.append(epoch_ended)
            if len(steps) == number:
                change(made)
            right(epoch_ended)

        wrap(made, "advance", advance)

    return apply


def _forget_average(made: Any) -> None:
    made.optimizer.state[made.model.get_parameter("query_map.bias")]["exp_avg"].zero_()


def _round_squares(made: Any) -> None:
    state = made.optimizer.state[made.model.get_parameter("memory_trans_fc.weight")]
    state["exp_avg_sq"] = state["exp_avg_sq"].bfloat16().float()


def _stuck_behind_the_second_step(made: Any) -> None:
    steps: list[bool] = []

    def advance(right: Callable, epoch_ended: bool) -> None:
        steps.append(epoch_ended)
        if len(steps) != 2:
            right(epoch_ended)

    wrap(made, "advance", advance)


def _clip(**values: Any) -> Apply:
    return lambda made: made.wrapper.clip_grad_kwargs.update(values)


def _unclipped(made: Any) -> None:
    made.wrapper.clip_grad_kwargs = None


def _head_unclipped(made: Any) -> None:
    def clip(right: Callable, parameters: Any, *args: Any, **kwargs: Any) -> Any:
        head = {id(p) for p in made.model.bbox_head.parameters()}
        return right([p for p in parameters if id(p) not in head], *args, **kwargs)

    wrap(made.wrapper, "clip_func", clip)


def _gradients_kept(made: Any) -> None:
    made.wrapper.zero_grad = lambda **kwargs: None


def _kept_module(name: str) -> Apply:
    """Clear all gradients but those of one module."""

    def apply(made: Any) -> None:
        module: nn.Module = made.model.get_submodule(name)

        def clear(right: Callable, **kwargs: Any) -> None:
            kept = [(p, p.grad.clone()) for p in module.parameters() if p.grad is not None]
            right(**kwargs)
            for parameter, gradient in kept:
                parameter.grad = gradient

        wrap(made.wrapper, "zero_grad", clear)

    return apply


def _warm_up_in(steps: int) -> Apply:
    def apply(made: Any) -> None:
        schedule = made.schedulers[0]
        schedule.end, schedule.total_iters = steps, steps - 1

    return apply


def _decay_after(epoch: int) -> Apply:
    def apply(made: Any) -> None:
        made.schedulers[1].milestones = type(made.schedulers[1].milestones)({epoch: 1})

    return apply


FAULTS = (
    _fault("betas", "optimizer setting", _OPTIMIZER, _all_groups(betas=(0.9, 0.95)), "`betas`"),
    _fault("adam_eps", "optimizer setting", _OPTIMIZER, _all_groups(eps=1e-7), "`eps`"),
    _fault("weight_decay", "optimizer setting", _OPTIMIZER, _all_groups(weight_decay=1e-4), "`weight_decay`"),
    _fault("one_without_decay", "parameter groups", "query_map.weight", _without_decay, "`weight_decay`"),
    _fault("backbone_as_fast_as_the_rest", "parameter groups", "backbone", _backbone_as_fast_as_the_rest, "lr`"),
    _fault("parameters_in_each_others_group", "parameter groups", _OPTIMIZER, _parameters_exchanged, "lr`"),
    _fault("parameter_left_out", "parameter groups", "level_embed", _left_out),
    _fault("no_bias_correction", "optimizer step", _OPTIMIZER, _stepping(_no_bias_correction)),
    _fault("decay_in_the_gradient", "optimizer step", _OPTIMIZER, _decay_in_the_gradient,
           "`exp_avg`"),
    _fault("one_parameter_ascends", "optimizer step", "dn_query_generator.label_embedding.weight",
           _stepping(_one_parameter_ascends)),
    _fault("average_forgotten", "optimizer state", "query_map.bias", _after_step(2, _forget_average), "`exp_avg`"),
    _fault("squares_rounded", "optimizer state", "memory_trans_fc.weight", _after_step(1, _round_squares),
           "`exp_avg_sq`"),
    _fault("warm_up_in_1000_steps", "schedule", _SCHEDULE, _warm_up_in(1000), "step 2"),
    _fault("decay_after_first_epoch", "schedule", _SCHEDULE, _decay_after(1), "step 3"),
    _fault("schedule_stuck", "schedule", _SCHEDULE, _stuck_behind_the_second_step, "step 3"),
    _fault("not_clipped", "clipping", _CLIPPING, _unclipped),
    _fault("clipped_to_another_norm", "clipping", _CLIPPING, _clip(max_norm=0.2), "`max_norm`"),
    _fault("clipped_by_largest_value", "clipping", _CLIPPING, _clip(norm_type=float("inf"))),
    _fault("head_not_clipped", "clipping", _CLIPPING, _head_unclipped),
    _fault("gradients_kept", "gradients not cleared", _WRAPPER, _gradients_kept, "step 2"),
    _fault("gradients_of_one_module_kept", "gradients not cleared", "query_map.bias", _kept_module("query_map"),
           "step 2"),
)  # fmt: skip
