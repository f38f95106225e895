"""Learning rates over a training: mmcv's `lr_config` as a list of mmengine's schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .draft import Draft, left_over

#: mmengine arrives one step early where mmcv counts from 0 (S1 of docs/mmdet2.md), so that `end` is one more.
_ONE_MORE = 1


def schedule(draft: Draft, old: Mapping[str, Any], is_by_epoch: bool, length: int | None) -> None:
    """Translate `lr_config`.

    Args:
        draft: is given `param_scheduler`.
        old: the whole config of 2.x.
        is_by_epoch: the runner counts epochs.
        length: of the training, in epochs or iterations; None if the config does not say.
    """
    if old.get("momentum_config") is not None:
        draft.remark("momentum_config", old["momentum_config"], "schedules of the momentum were not carried over")
    options = dict(old.get("lr_config") or {})
    if not options:
        return
    policy = options.pop("policy", "fixed")
    options.pop("_delete_", None)
    by_epoch = bool(options.pop("by_epoch", is_by_epoch))
    if by_epoch and not is_by_epoch:
        draft.remark(
            "lr_config.by_epoch", True, "the policy counts epochs and the runner iterations; 3.x wants one of both"
        )
    if policy == "YOLOX":
        schedulers = _yolox(draft, options, old, length)
    else:
        schedulers = [*_warm_up(draft, options), *_policy(draft, str(policy), options, by_epoch, length)]
    left_over(draft, "lr_config", options, f"not known of policy {policy}")
    draft.config["param_scheduler"] = schedulers


def _warm_up(draft: Draft, options: dict[str, Any]) -> list[dict[str, Any]]:
    kind, count = options.pop("warmup", None), options.pop("warmup_iters", 0)
    ratio, by_epoch = options.pop("warmup_ratio", 0.1), options.pop("warmup_by_epoch", False)
    if kind is None:
        return []
    path = "param_scheduler.0"
    for new, own in (
        ("end", "warmup_iters"),
        ("start_factor", "warmup_ratio"),
        ("factor", "warmup_ratio"),
        ("type", "warmup"),
    ):
        draft.came(f"{path}.{new}", f"lr_config.{own}")
    if by_epoch:
        draft.remark(
            "lr_config.warmup_by_epoch",
            True,
            "3.x counts epochs of the warm-up with `convert_to_iter_based`; compare the rates",
        )
    times = (
        dict(by_epoch=by_epoch, begin=0, end=count + _ONE_MORE)
        if not by_epoch
        else dict(by_epoch=True, begin=0, end=count, convert_to_iter_based=True)
    )
    if ratio == 1 and kind in ("linear", "constant"):
        return []  # no warm-up at all
    if kind == "linear":
        return [dict(type="LinearLR", start_factor=ratio, **times)]
    if kind == "constant":
        return [dict(type="ConstantLR", factor=ratio, **times)]
    draft.remark("lr_config.warmup", kind, "mmengine has no such warm-up")
    return []


def _policy(
    draft: Draft, policy: str, options: dict[str, Any], by_epoch: bool, length: int | None
) -> list[dict[str, Any]]:
    times: dict[str, Any] = dict(begin=0, **({} if length is None else dict(end=length)), by_epoch=by_epoch)
    place = "param_scheduler.1" if "param_scheduler.0.type" in draft.origins else "param_scheduler.0"
    draft.came(place, "lr_config")
    draft.came(f"{place}.milestones", "lr_config.step")
    draft.came(f"{place}.end", "runner.max_epochs" if by_epoch else "runner.max_iters")
    draft.came(f"{place}.type", "lr_config.policy")
    low = {
        new: options.pop(old)
        for old, new in (("min_lr", "eta_min"), ("min_lr_ratio", "eta_min_ratio"))
        if options.get(old) is not None
    }
    if policy == "step":
        steps, gamma = options.pop("step", []), options.pop("gamma", 0.1)
        if low:
            draft.remark("lr_config.min_lr", low, "steps of 3.x have no least rate")
        if isinstance(steps, int):
            return [dict(type="StepLR", **times, step_size=steps, gamma=gamma)]
        return [dict(type="MultiStepLR", **times, milestones=list(steps), gamma=gamma)]
    if policy == "CosineAnnealing":
        draft.came(f"{place}.T_max", times.get("end") and draft.origins[f"{place}.end"])
        return [dict(type="CosineAnnealingLR", **times, T_max=length, **(low or dict(eta_min=0)))]
    if policy == "poly":
        if "end" in times:
            times["end"] += _ONE_MORE
        return [dict(type="PolyLR", **times, power=options.pop("power", 1.0), **low)]
    if policy == "fixed":
        return []
    draft.remark(
        "lr_config.policy", policy, "no scheduler of 3.x is known for it; the rate stays as it is in the new config"
    )
    options.clear()
    return []


def _yolox(draft: Draft, options: dict[str, Any], old: Mapping[str, Any], length: int | None) -> list[dict[str, Any]]:
    """A quadratic warm-up, a cosine, and a last part with the least rate; in epochs, counted in iterations."""
    count, last = options.pop("warmup_iters", 0), options.pop("num_last_epochs", 0)
    share, ratio = options.pop("min_lr_ratio", 0.05), options.pop("warmup_ratio", 1)
    kind, by_epoch = options.pop("warmup", None), options.pop("warmup_by_epoch", False)
    if kind != "exp" or ratio != 1 or not by_epoch or length is None:
        draft.remark(
            "lr_config",
            dict(old.get("lr_config") or {}),
            "this schedule of YOLOX is not known in 3.x; compare the rates",
        )
    end = (length or 0) - last
    for number in range(3):
        draft.came(f"param_scheduler.{number}", "lr_config")
    draft.came("param_scheduler.0.end", "lr_config.warmup_iters")
    draft.came("param_scheduler.1.eta_min", "lr_config.min_lr_ratio")
    draft.came("param_scheduler.1.begin", "lr_config.warmup_iters")
    draft.came("param_scheduler.1.end", "lr_config.num_last_epochs")
    return [
        dict(type="QuadraticWarmupLR", by_epoch=True, begin=0, end=count, convert_to_iter_based=True),
        dict(
            type="CosineAnnealingLR", eta_min=(old.get("optimizer") or {}).get("lr", 0) * share, begin=count,
            T_max=end - count, end=end, by_epoch=True, convert_to_iter_based=True,
        ),
        dict(type="ConstantLR", by_epoch=True, factor=1, begin=end, end=length),
    ]  # fmt: skip
