"""Optimizer, schedule, loops and hooks of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .draft import Draft, left_over, taken
from .schedules import schedule

_HOOKS_OF_OPTIMIZER = ("OptimizerHook", "DistOptimizerHook", "Fp16OptimizerHook", "GradientCumulativeOptimizerHook",
                       "GradientCumulativeFp16OptimizerHook")  # fmt: skip


def training(draft: Draft, old: Mapping[str, Any]) -> None:
    """Translate everything that only a training needs."""
    _optimizer(draft, old)
    is_by_epoch, length = _loop(draft, old)
    schedule(draft, old, is_by_epoch, length)
    _hooks(draft, old, is_by_epoch)


def _optimizer(draft: Draft, old: Mapping[str, Any]) -> None:
    optimizer = dict(old.get("optimizer") or {})
    hook = dict(old.get("optimizer_config") or {})
    half = old.get("fp16")
    if not optimizer:
        return
    new: dict[str, Any] = dict(type="OptimWrapper")
    draft.came("optim_wrapper.optimizer", "optimizer")
    draft.came("optim_wrapper.paramwise_cfg", "optimizer.paramwise_cfg")
    draft.came("optim_wrapper.constructor", "optimizer.constructor")
    draft.came("optim_wrapper.clip_grad", "optimizer_config.grad_clip")
    draft.came("optim_wrapper.accumulative_counts", "optimizer_config.cumulative_iters")
    paramwise, constructor = optimizer.pop("paramwise_cfg", None), optimizer.pop("constructor", None)
    kind = hook.pop("type", None)
    if half is not None or "Fp16" in str(kind):
        draft.came("optim_wrapper.type", "fp16")
        draft.came("optim_wrapper.loss_scale", "fp16.loss_scale")
        scale = (half or hook).get("loss_scale", 512.0)
        new = dict(type="AmpOptimWrapper", loss_scale=scale)
        draft.remark(
            "fp16",
            half or kind,
            "2.x rounds within its own modules, 3.x where torch.autocast does; losses differ in half precision",
        )
    hook.pop("loss_scale", None)
    new["optimizer"] = optimizer
    if constructor is not None and constructor != "DefaultOptimizerConstructor":
        new["constructor"] = constructor
    if paramwise is not None:
        new["paramwise_cfg"] = paramwise
    clip = hook.pop("grad_clip", None)
    if clip is not None:
        new["clip_grad"] = clip
    count = hook.pop("cumulative_iters", None)
    if count is not None:
        new["accumulative_counts"] = count
    hook.pop("_delete_", None)
    if kind is not None and kind not in _HOOKS_OF_OPTIMIZER:
        draft.remark("optimizer_config.type", kind, "not known; 3.x steps in its optimizer wrapper")
    left_over(
        draft,
        "optimizer_config",
        {k: v for k, v in hook.items() if k not in ("coalesce", "bucket_size_mb")},
        "3.x has no such setting",
    )
    draft.config["optim_wrapper"] = new


def _loop(draft: Draft, old: Mapping[str, Any]) -> tuple[bool, int | None]:
    """Translate the runner; return whether it counts epochs, and how many of them or of iterations."""
    runner = dict(old.get("runner") or {})
    if not runner and old.get("total_epochs") is not None:
        runner = dict(type="EpochBasedRunner", max_epochs=old["total_epochs"])
        draft.came("train_cfg.max_epochs", "total_epochs")
    if not runner:
        return True, None
    evaluation = old.get("evaluation") or {}
    is_by_epoch = "max_iters" not in runner
    draft.came("train_cfg", "runner")
    for name in ("interval", "begin"):
        draft.came(f"train_cfg.val_{name}", "evaluation." + dict(interval="interval", begin="start")[name])
    draft.came("train_cfg.dynamic_intervals", "evaluation.dynamic_intervals")
    new: dict[str, Any] = dict(type="EpochBasedTrainLoop" if is_by_epoch else "IterBasedTrainLoop")
    runner.pop("type", None)
    new.update(taken(runner, dict(max_epochs="max_epochs", max_iters="max_iters")))
    left_over(draft, "runner", runner, "not known of a runner")
    new["val_interval"] = evaluation.get("interval", 1)
    if evaluation.get("dynamic_intervals"):
        new["dynamic_intervals"] = [tuple(one) for one in evaluation["dynamic_intervals"]]
    if evaluation.get("start") is not None:
        new["val_begin"] = evaluation["start"]
    draft.config["train_cfg"] = new
    if "val_dataloader" in draft.config:
        draft.config["val_cfg"] = dict(type="ValLoop")
    if "test_dataloader" in draft.config:
        draft.config["test_cfg"] = dict(type="TestLoop")
    if any(phase != "train" for phase, _ in old.get("workflow") or ()):
        draft.remark("workflow", old["workflow"], "3.x validates by `val_interval` only, without a loss")
    return is_by_epoch, new.get("max_epochs", new.get("max_iters"))


def _hooks(draft: Draft, old: Mapping[str, Any], is_by_epoch: bool) -> None:
    hooks: list[dict[str, Any]] = []
    for number, hook in enumerate(old.get("custom_hooks") or ()):
        new = _hook(draft, dict(hook), f"custom_hooks.{number}")
        if new is not None:
            draft.came(f"custom_hooks.{len(hooks)}", f"custom_hooks.{number}")
            hooks.append(new)
    if hooks:
        draft.config["custom_hooks"] = hooks
    default: dict[str, Any] = {}
    checkpoints = dict(old.get("checkpoint_config") or {})
    evaluation = old.get("evaluation") or {}
    if checkpoints:
        draft.came("default_hooks.checkpoint", "checkpoint_config")
        draft.came("default_hooks.checkpoint.save_best", "evaluation.save_best")
        names = {
            key: key for key in ("interval", "by_epoch", "max_keep_ckpts", "save_last", "save_optimizer", "out_dir")
        }
        if not is_by_epoch:
            checkpoints.setdefault("by_epoch", False)  # as 2.x does for such a runner
        default["checkpoint"] = dict(type="CheckpointHook", **taken(checkpoints, names))
        checkpoints.pop("create_symlink", None)
        checkpoints.pop("meta", None)
        left_over(draft, "checkpoint_config", checkpoints, "not known of `CheckpointHook`")
        best = evaluation.get("save_best")
        if best is not None:
            default["checkpoint"]["save_best"] = best if best == "auto" else f"coco/{best}"
    log = dict(old.get("log_config") or {})
    if log:
        draft.came("default_hooks.logger", "log_config")
        default["logger"] = dict(type="LoggerHook", interval=log.get("interval", 10))
        shown = [hook.get("type") for hook in log.get("hooks") or ()]
        other = [kind for kind in shown if kind not in ("TextLoggerHook", "TensorboardLoggerHook")]
        if "TensorboardLoggerHook" in shown:
            backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
            draft.config["visualizer"] = dict(type="DetLocalVisualizer", vis_backends=backends, name="visualizer")
        if other:
            draft.remark("log_config.hooks", other, "3.x has other backends: `visualizer.vis_backends`")
    if default:
        draft.config["default_hooks"] = default
    if not is_by_epoch:
        draft.config["log_processor"] = dict(type="LogProcessor", by_epoch=False)


#: Hooks of 2.x that change no result: one compares numbers of classes, heads of 3.x ask the runner for the epoch.
_GONE = ("NumClassCheckHook", "SetEpochInfoHook")


def _hook(draft: Draft, hook: dict[str, Any], path: str) -> dict[str, Any] | None:
    kind = hook.get("type")
    if kind in _GONE:
        return None
    if kind in ("ExpMomentumEMAHook", "EMAHook", "LinearMomentumEMAHook"):
        return _average(draft, hook, path)
    if kind == "SyncNormHook":
        return {key: value for key, value in hook.items() if key not in ("num_last_epochs", "interval")}
    return hook


def _average(draft: Draft, hook: dict[str, Any], path: str) -> dict[str, Any]:
    kind = hook.pop("type")
    hook.pop("resume_from", None)
    momentum, interval = hook.pop("momentum", 0.0002), hook.pop("interval", 1)
    if kind != "ExpMomentumEMAHook":
        momentum = momentum**interval  # as these hooks do by themselves
    new: dict[str, Any] = dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=momentum)
    if kind != "EMAHook" and interval != 1:
        draft.remark(f"{path}.interval", interval, "2.x averages in the last of so many steps, 3.x in the first")
    if kind == "ExpMomentumEMAHook":
        new.update(
            ema_type="ExpMomentumEMA",
            gamma=hook.pop("total_iter", 2000),
            update_buffers=not hook.pop("skip_buffers", False),
        )
        draft.came(f"{path}.gamma", f"{path}.total_iter")
    else:
        warm_up = hook.pop("warm_up", 100)
        if kind == "LinearMomentumEMAHook":
            new["update_buffers"] = not hook.pop("skip_buffers", False)
        if momentum > 1 / max(warm_up, 1):
            draft.remark(f"{path}.warm_up", warm_up, "3.x has no such warm-up of the momentum")
    if interval != 1:
        new["interval"] = interval
    new.update(taken(hook, dict(priority="priority")))
    left_over(draft, path, hook, f"not known of `{kind}`")
    return new
