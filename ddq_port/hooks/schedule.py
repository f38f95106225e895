"""A training that is resumed goes on with the learning rates and schedules that its config has, or is refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from ddq_port.registry import HOOKS

from . import exact_resume, saved_config
from .errors import ResumeRefusedError

_OPTIMIZER = "optim_wrapper.optimizer"
_PARAMWISE = ("optim_wrapper.paramwise_cfg", "optim_wrapper.constructor", "auto_scale_lr")
_SCHEDULE = "param_scheduler"
#: Settings of a group that choose how, not what, an optimizer computes.
_SWITCHES = {"params", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"}
_OF_A_KIND = ("betas", "momentum", "alpha", "rho")  # settings by which families of optimizers differ
#: What a schedule's state tells of its progress.
_PROGRESS = {
    *("base_values", "last_step", "_global_step", "_last_value", "verbose", "optimizer"),
    *("best", "num_bad_epochs", "cooldown_counter", "mode_worse"),
}
_LENGTHS = ("train_cfg.max_epochs", "train_cfg.max_iters")
_ABSENT = "not set"


@dataclass(frozen=True)
class Change:
    """A setting that the checkpoint was saved with and another value that the config has now.

    Attributes:
        key: in the config.
        saved: value in the checkpoint.
        now: value in the config.
    """

    key: str
    saved: Any
    now: Any

    def text(self, between: str) -> str:
        """Say it, with a word between the values."""
        return f"{self.key} {_shown(self.saved)}{between}{_shown(self.now)}"


@HOOKS.register_module()
class SameScheduleHook(Hook):
    """Refuse to resume with other learning rates, other settings of the optimizer or other schedules than the saved.

    mmengine goes on with those of the checkpoint, whatever the config says. Compared is what the config builds with the
    state in the checkpoint, and what is in no state (clipping, running averages) with the text of the config there.
    A training may become longer: `max_epochs` and `max_iters` are free as long as no schedule follows from them.

    Args:
        override: take the settings of the config: the state of the optimizer stays, schedules are run up to the place
            where the training goes on.
        file: name of the checkpoint, for messages.
        say: is given the lines that tell what was taken and kept.

    Raises:
        ResumeRefusedError: naming each key with both values.
    """

    def __init__(
        self, override: bool = False, file: str = "The checkpoint", say: Callable[[str], None] | None = None
    ) -> None:
        self.override, self.file, self._say = override, file, say

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare, before mmengine gives the states to optimizer and schedules."""
        states = checkpoint.get("optimizer", {}), checkpoint.get("param_schedulers") or []
        of_one_optimizer = "param_groups" in states[0] and isinstance(states[1], list)
        if not runner._resume or not isinstance(runner.optim_wrapper, OptimWrapper) or not of_one_optimizer:
            return
        if (
            any(isinstance(hook, exact_resume.ExactResumeHook) for hook in runner.hooks)
            and exact_resume.KEY in checkpoint
        ):
            exact_resume.check_setting(runner, checkpoint[exact_resume.KEY])  # what no option overrides comes first
        old = _config_of(checkpoint)
        lengths = _config_changes(runner, old, _LENGTHS)
        self._refuse_other_groups(runner, checkpoint, old)
        changes = [
            *_optimizer_changes(runner, checkpoint, old),
            *_schedule_changes(runner, checkpoint, old),
            *_other_changes(runner, old),
        ]
        if not changes:
            for change in lengths:
                self._tell(runner, f"{change.text(' in the checkpoint, now ')}: the schedules stay as they are")
            return
        if not self.override:
            raise ResumeRefusedError(
                f"{self.file} was saved with {'; '.join(change.text(', now ') for change in changes)}. Resume with the "
                "values of the checkpoint, or pass --override-schedule to take those of the config."
            )
        self._take(runner, checkpoint)
        meta = checkpoint["meta"]
        rate = runner.optim_wrapper.get_lr().get("base_lr") or runner.optim_wrapper.get_lr()["lr"]
        self._tell(
            runner, f"taken from the config: {'; '.join(change.text(' -> ') for change in [*changes, *lengths])}"
        )
        self._tell(
            runner,
            f"kept from the checkpoint: weights, the optimizer's state of {len(checkpoint['optimizer']['state'])} "
            f"parameters, counters; the schedules stand where they are after iteration {meta['iter']} (epochs done: "
            f"{meta['epoch']}), with a learning rate of {rate[0]:.6g}",
        )

    def _tell(self, runner: Runner, line: str) -> None:
        runner.logger.info(line)
        if self._say is not None:
            self._say(line)

    def _refuse_other_groups(self, runner: Runner, checkpoint: dict[str, Any], old: dict[str, Any]) -> None:
        """Refuse an optimizer that cannot take the state, which torch would tell without the reason."""
        saved, groups = checkpoint["optimizer"]["param_groups"], runner.optim_wrapper.optimizer.param_groups
        kind, before = type(runner.optim_wrapper.optimizer).__name__, old.get(f"{_OPTIMIZER}.type")
        sizes, now = ([len(group["params"]) for group in given] for given in (saved, groups))
        if sizes != now:
            why = f"{sum(sizes)} parameters in {len(sizes)} groups of the optimizer, now {sum(now)} in {len(now)}"
        elif before not in (kind, None):
            why = f"{_OPTIMIZER}.type {before}, now {kind}"
        elif any((setting in saved[0]) != (setting in groups[0]) for setting in _OF_A_KIND):
            why = f"an optimizer of another kind than {kind}"
        else:
            return
        raise ResumeRefusedError(
            f"{self.file} was saved with {why}, whose state cannot be taken over. Resume with the settings of the "
            "checkpoint, or begin with its weights alone (--load-from)."
        )

    def _take(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put the settings of the config into the checkpoint that is about to be resumed."""
        meta, wrapper, saved = checkpoint["meta"], runner.optim_wrapper, checkpoint["optimizer"]
        schedules = _schedules(runner)
        unknown = [type(schedule).__name__ for schedule in schedules if getattr(schedule, "need_val_args", False)]
        if unknown:
            raise ResumeRefusedError(
                f"--override-schedule cannot tell where {unknown[0]} would stand, which follows the validations; begin "
                "with the weights of the checkpoint (--load-from)."
            )
        _fast_forward(runner, schedules, meta["epoch"], meta["iter"])
        groups = zip(wrapper.optimizer.param_groups, saved["param_groups"])
        saved["param_groups"] = [{**now, "params": group["params"]} for now, group in groups]
        if wrapper.base_param_settings is not None:
            saved["base_param_settings"] = dict(wrapper.base_param_settings)
        checkpoint["param_schedulers"] = [schedule.state_dict() for schedule in schedules]


def _config_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the config in a checkpoint by dotted key; none if it has no config that can be read."""
    try:
        return dict(saved_config.flat(saved_config.parse(checkpoint["meta"]["cfg"])))
    except (KeyError, TypeError, SyntaxError, ValueError):
        return {}


def _config_changes(runner: Runner, old: Mapping[str, Any], prefixes: tuple[str, ...]) -> list[Change]:
    """Return the settings below some keys that differ between the two configs' texts."""
    if not old:
        return []
    new = dict(saved_config.flat(saved_config.parse(runner.cfg.pretty_text)))
    keys = [key for key in dict.fromkeys([*old, *new]) if any(_below(key, prefix) for prefix in prefixes)]
    pairs = [(key, old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in keys]
    return [Change(key, saved, now) for key, saved, now in pairs if not _same(saved, now)]


def _below(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(f"{prefix}.")


def _optimizer_changes(runner: Runner, checkpoint: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Change]:
    """Compare the settings of all groups, learning rates without what schedules have made of them."""
    wrapper, saved = runner.optim_wrapper, checkpoint["optimizer"]
    names = {id(param): name for name, param in runner.model.named_parameters()}
    pairs = [
        (_unscheduled(was), _unscheduled(now))
        for was, now in zip(saved["param_groups"], wrapper.optimizer.param_groups)
    ]
    base = (saved.get("base_param_settings"), wrapper.base_param_settings)
    explained: set[str] = set()
    for setting in dict.fromkeys(name for was, now in pairs for name in was if name in now):
        differ = [number for number, (was, now) in enumerate(pairs) if not _same(was.get(setting), now.get(setting))]
        if not differ:
            continue
        key = f"{_OPTIMIZER}.{setting}"
        # a rate follows from the base rate and multipliers, so do decays
        changes = _config_changes(runner, old, (key,)) + _config_changes(runner, old, _PARAMWISE)
        if not changes and None not in base and not _same(*(_unscheduled(group).get(setting) for group in base)):
            changes = [Change(key, *(_unscheduled(group).get(setting) for group in base))]
        if not changes:
            was, now = pairs[differ[0]]
            param = wrapper.optimizer.param_groups[differ[0]]["params"][0]
            key = f"{key} of `{names.get(id(param), 'a parameter')}`" + (
                f" and {len(differ) - 1} more" if differ[1:] else ""
            )
            changes = [Change(key, was[setting], now[setting])]
        yield from (change for change in changes if change.key not in explained)
        explained |= {change.key for change in changes}


def _unscheduled(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a group as they were before any schedule."""
    first = {name.removeprefix("initial_"): value for name, value in group.items() if name.startswith("initial_")}
    own = {name: value for name, value in group.items() if name not in _SWITCHES and not name.startswith("initial_")}
    return {**own, **first}


def _schedule_changes(runner: Runner, checkpoint: Mapping[str, Any], old: Mapping[str, Any]) -> list[Change]:
    """Compare the settings of all schedules."""
    saved, now = checkpoint.get("param_schedulers") or [], _schedules(runner)
    differ = [] if len(saved) == len(now) else [Change(f"{_SCHEDULE}, number of schedules", len(saved), len(now))]
    for number, (was, schedule) in enumerate(zip(saved, now)):
        key = f"{_SCHEDULE}.{number}"
        differ += _of_schedule(key, was, schedule.state_dict()) or _config_changes(runner, old, (f"{key}.type",))
    return (_config_changes(runner, old, (_SCHEDULE,)) or differ) if differ else []


def _of_schedule(key: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    names = [name for name in dict.fromkeys([*was, *now]) if name not in _PROGRESS]
    if not (set(was) - set(now) and set(now) - set(was)):
        names = [name for name in names if name in was and name in now]  # an older version has fewer settings
    if "milestones" in was and "milestones" in now and was["milestones"] == now["milestones"]:
        first = min(was["end"], now["end"])
        if all(milestone < first for milestone in was["milestones"]):
            names.remove("end")  # nothing happens behind the last milestone
    return [
        Change(f"{key}.{name}", was.get(name, _ABSENT), now.get(name, _ABSENT))
        for name in names
        if not _same(was.get(name, _ABSENT), now.get(name, _ABSENT))
    ]


def _other_changes(runner: Runner, old: Mapping[str, Any]) -> list[Change]:
    """Compare what is in no state: clipping, precision, accumulation, running averages, images per batch."""
    changes = [
        change
        for change in _config_changes(runner, old, ("optim_wrapper", "train_dataloader.batch_size"))
        if not any(_below(change.key, key) for key in (_OPTIMIZER, *_PARAMWISE))
    ]
    return changes + (_average_changes(runner, old) if old else [])


def _average_changes(runner: Runner, old: Mapping[str, Any]) -> list[Change]:
    new = dict(saved_config.flat(saved_config.parse(runner.cfg.pretty_text)))
    was, now = _average(old), _average(new)
    if not was or not now:
        return []  # ExactResumeHook looks whether averages are taken up
    keys = dict.fromkeys([*was, *now])
    found = [Change(f"custom_hooks, EMAHook.{key}", was.get(key, _ABSENT), now.get(key, _ABSENT)) for key in keys]
    return [change for change in found if not _same(change.saved, change.now)]


def _average(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the EMAHook in a config."""
    for key, value in settings.items():
        if key.startswith("custom_hooks.") and key.endswith(".type") and str(value).rpartition(".")[2] == "EMAHook":
            prefix = key.removesuffix("type")
            own = {name.removeprefix(prefix): item for name, item in settings.items() if name.startswith(prefix)}
            return {name: item for name, item in own.items() if name not in ("type", "priority")}
    return {}


def _schedules(runner: Runner) -> list[Any]:
    return list(runner.param_schedulers) if isinstance(runner.param_schedulers, list) else []


def _fast_forward(runner: Runner, schedules: list[Any], epochs: int, iterations: int) -> None:
    """Run schedules that were just built up to a place, in the order in which mmengine's hook does it."""
    by_iteration = [schedule for schedule in schedules if not schedule.by_epoch]
    by_epoch = [schedule for schedule in schedules if schedule.by_epoch]
    in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    length = len(runner.train_loop.dataloader) if in_epochs else 0
    done = 0
    with warnings.catch_warnings(action="ignore"):  # that the optimizer has not stepped
        for iteration in range(1, iterations + 1):
            for schedule in by_iteration:
                schedule.step()
            if in_epochs and done < epochs and iteration == (done + 1) * length:
                done += 1
                for schedule in by_epoch:
                    schedule.step()
        for _ in range(epochs - done if in_epochs else 0):
            for schedule in by_epoch:
                schedule.step()


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, int | float) and isinstance(two, int | float):
        return math.isclose(one, two, rel_tol=1e-9) or (one != one and two != two)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(_same(*pair) for pair in zip(one, two))
    return bool(one == two)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and all(isinstance(key, int) for key in value):
        return str(sorted(value))  # milestones, which are counted
    return "None" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
