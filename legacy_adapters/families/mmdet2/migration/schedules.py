"""Learning rates and momenta over a training: `lr_config` and `momentum_config` as a list of mmengine's schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .draft import ABSENT, Draft, left_over

#: mmengine arrives one step early where mmcv counts from 0 (S1 of docs/mmdet2.md), so that `end` is one more.
_ONE_MORE = 1


def schedule(draft: Draft, old: Mapping[str, Any], is_by_epoch: bool, length: int | None) -> None:
    """Translate `lr_config` and `momentum_config`.

    Args:
        draft: is given `param_scheduler`.
        old: the whole config of 2.x.
        is_by_epoch: the runner counts epochs.
        length: of the training, in epochs or iterations; None if the config does not say.
    """
    rates = _section(draft, old, "lr_config", _Time(is_by_epoch, length))
    momenta = _section(draft, old, "momentum_config", _Time(is_by_epoch, length))
    if old.get("lr_config") or momenta:
        draft.config["param_scheduler"] = [*rates, *momenta]


def exact(old: Mapping[str, Any], is_by_epoch: bool, length: int | None, epoch_length: int | None) -> list[dict[str, Any]]:
    """Return the schedules of a training of which the length of an epoch is known, so that none has to be converted.

    They are of the same classes as those of :func:`schedule`, in the same order. Where 3.x can only count whole epochs in a
    config, these have the very iteration at which 2.x begins or ends.

    Args:
        old: the whole config of 2.x.
        is_by_epoch: the runner counts epochs.
        length: of the training, in epochs or iterations.
        epoch_length: iterations of an epoch; None if not known.
    """
    time = _Time(is_by_epoch, length, epoch_length)
    return [one for section in ("lr_config", "momentum_config") for one in _section(Draft(), old, section, time)]


@dataclass(frozen=True)
class _Time:
    """How a training counts: epochs or iterations, and how many there are."""

    is_by_epoch: bool
    length: int | None
    epoch_length: int | None = None

    def span(self, by_epoch: bool, begin: int = 0, more: int = 0) -> dict[str, Any]:
        """Return when a policy of the whole training begins and ends, which is ``more`` behind the training's end."""
        if by_epoch == self.is_by_epoch:
            end = {} if self.length is None else dict(end=self.length + more)
            return dict(begin=begin, **end, by_epoch=by_epoch)
        if self.epoch_length is None:
            end = {} if self.length is None else dict(end=self.length)
            return dict(begin=begin, **end, by_epoch=True, convert_to_iter_based=True)
        end = {} if self.length is None else dict(end=self.length * self.epoch_length + more)
        return dict(begin=begin * self.epoch_length, **end, by_epoch=False)


def _section(draft: Draft, old: Mapping[str, Any], section: str, time: _Time) -> list[dict[str, Any]]:
    """Return the schedulers of `lr_config` or of `momentum_config`."""
    options = dict(old.get(section) or {})
    if not options:
        return []
    policy = str(options.pop("policy", "fixed"))
    policy = policy.title() if policy == policy.lower() else policy  # as mmcv looks for the hook
    options.pop("_delete_", None)
    by_epoch = bool(options.pop("by_epoch", time.is_by_epoch or section == "momentum_config"))  # as mmcv's runners have it
    if by_epoch and not time.is_by_epoch:
        draft.remark(f"{section}.by_epoch", True, "the policy counts epochs and the runner iterations; 3.x wants one of both")
    if policy == "YOLOX":
        found = _yolox(draft, options, old, time)
    elif section == "lr_config":
        found = [*_warm_up(draft, options, time), *_policy(draft, policy, options, by_epoch, time, section)]
    else:
        found = _policy(draft, policy, options, by_epoch, time, section)
        if options.pop("warmup", None) is not None:
            draft.remark(f"{section}.warmup", ABSENT, "mmcv divides by the part of a warm-up, which 3.x has no schedule for")
            for name in ("warmup_iters", "warmup_ratio"):
                options.pop(name, None)
        found = [dict(one, type=one["type"].replace("LR", "Momentum")) for one in found]
    left_over(draft, section, options, f"not known of policy {policy}")
    return found


def _warm_up(draft: Draft, options: dict[str, Any], time: _Time) -> list[dict[str, Any]]:
    kind, count = options.pop("warmup", None), options.pop("warmup_iters", 0)
    ratio, by_epoch = options.pop("warmup_ratio", 0.1), options.pop("warmup_by_epoch", False)
    if kind is None:
        return []
    if by_epoch:
        draft.remark(
            "lr_config.warmup_by_epoch",
            True,
            "3.x counts epochs of the warm-up with `convert_to_iter_based`; compare the rates",
        )
    if by_epoch and time.epoch_length is not None:
        count, by_epoch = count * time.epoch_length, False
    times = (
        dict(by_epoch=by_epoch, begin=0, end=count + _ONE_MORE)
        if not by_epoch
        else dict(by_epoch=True, begin=0, end=count, convert_to_iter_based=True)
    )
    if ratio == 1:
        return []  # no warm-up at all
    found = []
    if kind == "linear":
        found = [dict(type="LinearLR", start_factor=ratio, **times)]
    elif kind == "constant":
        found = [dict(type="ConstantLR", factor=ratio, **times)]
    elif kind == "exp" and not by_epoch and count:
        # a part that grows by one factor from step to step; what the first one takes away never comes back by itself
        growth = dict(type="ExponentialLR", gamma=ratio ** (-1 / count), **times)
        found = [dict(type="ConstantLR", factor=ratio, by_epoch=False, begin=0), growth]
    else:
        draft.remark("lr_config.warmup", kind, "mmengine has no such warm-up")
    origins = dict(end="warmup_iters", start_factor="warmup_ratio", factor="warmup_ratio", gamma="warmup_ratio", type="warmup")
    for number in range(len(found)):
        for new, own in origins.items():
            draft.came(f"param_scheduler.{number}.{new}", f"lr_config.{own}")
    return found


def _policy(
    draft: Draft, policy: str, options: dict[str, Any], by_epoch: bool, time: _Time, section: str
) -> list[dict[str, Any]]:
    times = time.span(by_epoch)
    length = None if "end" not in times else times["end"]
    is_rate = section == "lr_config"
    place = next(f"param_scheduler.{number}" for number in range(9) if f"param_scheduler.{number}.type" not in draft.origins)
    draft.came(place, section)
    draft.came(f"{place}.milestones", f"{section}.step")
    draft.came(f"{place}.end", "runner.max_epochs" if time.is_by_epoch else "runner.max_iters")
    draft.came(f"{place}.type", f"{section}.policy")
    least = "lr" if is_rate else "momentum"
    low = {
        new: options.pop(old)
        for old, new in ((f"min_{least}", "eta_min"), (f"min_{least}_ratio", "eta_min_ratio"))
        if options.get(old) is not None
    }
    if policy == "Step":
        steps, gamma = options.pop("step", []), options.pop("gamma", 0.1 if is_rate else 0.5)
        if low:
            draft.remark(f"{section}.min_{least}", low, f"steps of 3.x have no least {'rate' if is_rate else 'momentum'}")
        times = _counted(times)
        if isinstance(steps, int):
            return [dict(type="StepLR", **times, step_size=steps, gamma=gamma)]
        return [dict(type="MultiStepLR", **times, milestones=list(steps), gamma=gamma)]
    if policy == "Exp" and is_rate:
        return [dict(type="ExponentialLR", **times, gamma=options.pop("gamma"))]
    if policy == "CosineAnnealing":
        draft.came(f"{place}.T_max", times.get("end") and draft.origins[f"{place}.end"])
        return [dict(type="CosineAnnealingLR", **times, T_max=length, **(low or dict(eta_min=0)))]
    if policy == "FlatCosineAnnealing" and time.length is not None:
        share = options.pop("start_percent", 0.75)
        begin = round((length if "convert_to_iter_based" not in times else time.length) * share)
        return [dict(type="CosineAnnealingLR", **{**times, "begin": begin}, T_max=length - begin, **(low or dict(eta_min=0)))]
    if policy in ("Poly", "LinearAnnealing") and not (policy == "Poly" and not is_rate):
        times = time.span(by_epoch, more=_ONE_MORE)
        if "convert_to_iter_based" in times:
            draft.remark(f"{section}.by_epoch", False, "3.x ends this schedule an iteration early; compare the rates")
        power = options.pop("power", 1.0) if policy == "Poly" else 1.0
        if "eta_min_ratio" in low:
            return [dict(type="LinearLR", **times, start_factor=1.0, end_factor=low["eta_min_ratio"])]
        return [dict(type="PolyLR", **times, power=power, **low)]
    if policy == "CosineRestart" and is_rate:
        given = {name: options.pop(name) for name in ("periods", "restart_weights") if name in options}
        return [dict(type="CosineRestartLR", **_counted(times), **dict(dict(restart_weights=[1]), **given), **low)]
    if policy == "Fixed" and is_rate:
        return []
    what = "rate" if is_rate else "momentum"
    draft.remark(
        f"{section}.policy", policy, f"no scheduler of 3.x is known for it; the {what} stays as it is in the new config"
    )
    options.clear()
    return []


def _counted(times: dict[str, Any]) -> dict[str, Any]:
    """Return when a policy begins and ends whose own numbers are iterations, which a conversion would take for epochs."""
    return dict(begin=0, by_epoch=False) if "convert_to_iter_based" in times else times


def _yolox(draft: Draft, options: dict[str, Any], old: Mapping[str, Any], time: _Time) -> list[dict[str, Any]]:
    """A quadratic warm-up, a cosine, and a last part with the least rate; in epochs, counted in iterations."""
    length, steps = time.length, time.epoch_length
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
    if steps is not None and length is not None:
        # 2.x is one iteration ahead in the cosine, which begins where the warm-up takes its last step
        flat = dict(type="ConstantLR", by_epoch=True, factor=1, begin=end, end=length)
        warm, turn = count * steps if by_epoch else count, end * steps
        return [
            dict(type="QuadraticWarmupLR", by_epoch=False, begin=0, end=warm),
            dict(
                type="CosineAnnealingLR", eta_min_ratio=share, begin=warm - 1, T_max=turn - warm, end=turn, by_epoch=False,
            ),
            flat,
        ]  # fmt: skip
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
