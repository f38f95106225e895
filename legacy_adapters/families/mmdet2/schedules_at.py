"""The states of mmengine's schedulers at a place in a training, which mmcv 1.x does not save.

They are made by mmengine's own classes. Whether they go on as mmcv does is not taken on trust: the schedulers are run on, and
each rate is compared with what mmcv's hooks would set (`converters.mmcv1.rates`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Tuple

from converters.errors import PartsError
from converters.mmcv1.rates import MOMENTUM, RATE, Course
from converters.mmcv1.saved import ADVICE
from converters.mmcv1.stops import Stop
from converters.mmcv1.taken_up import TakenUp

from .migration.toolkit import known

_CLOSE = 1e-9  # relative; a schedule that multiplies step by step rounds anew in each
_STEPS = 2000  # that schedules are run on; behind them epochs only, if nothing else is left
_PROGRESS = ("base_values", "last_step", "_global_step", "_last_value", "verbose")


def as_built(one: dict[str, Any], stop: Stop, length: int | None) -> dict[str, Any]:
    """Return a scheduler of the new config as mmengine's Runner completes it."""
    made = dict(one)
    by_epoch = made.get("by_epoch", True)
    if length is not None and by_epoch == stop.by_epoch:
        made.setdefault("end", length)
    elif length is not None and stop.epoch_length is not None and not by_epoch:
        made.setdefault("end", length * stop.epoch_length)
    return made


@dataclass(frozen=True)
class Schedules:
    """Schedules that are made for a place.

    Attributes:
        schedules: mmengine's dicts.
        courses: what mmcv sets, by section; none if it is not known.
        stop: the place.
        slots: settings of groups as the last step had them.
        length: of the training, in epochs or iterations.
    """

    schedules: list[dict[str, Any]]
    courses: Mapping[str, Course]
    stop: Stop
    slots: Sequence[Mapping[str, Any]]
    length: int | None

    def taken_up(self, wanted: Sequence[Mapping[str, Any]]) -> TakenUp:
        has_momentum = MOMENTUM in self.courses or any("Momentum" in str(one["type"]) for one in self.schedules)
        starts = [_start(slot, has_momentum) for slot in self.slots]
        distinct = list(dict.fromkeys(starts))
        of_slot = [distinct.index(start) for start in starts]
        groups = _groups(distinct)
        schedulers = [self._built(one, groups) for one in self.schedules]
        now = self._values(distinct, of_slot, schedulers, groups)
        groups.give(now)
        for scheduler in schedulers:
            self._place(scheduler)
        by_betas = any("betas" in slot for slot in self.slots)
        states = [_state(scheduler, of_slot, by_betas) for scheduler in schedulers]
        scheduled = {scheduler.param_name for scheduler in schedulers}
        settings = [
            _settings(slot, now[number], distinct[number], scheduled) for slot, number in zip(self.slots, of_slot)
        ]
        if self.courses:
            self._check_on(schedulers, groups, distinct)
        return TakenUp(states, settings, self._notes(states, wanted))

    def _built(self, one: dict[str, Any], groups: Any) -> Any:
        found = known("param_scheduler", one["type"])
        if found is None:
            raise PartsError(f"The new config has a schedule `{one['type']}`, which 3.x does not have; {ADVICE}.")
        if getattr(found, "need_val_args", False):
            raise PartsError(f"`{one['type']}` of the new config follows from validations, which 2.x does not save; {ADVICE}.")
        given = {key: value for key, value in one.items() if key not in ("type", "convert_to_iter_based")}
        if one.get("convert_to_iter_based") and self.stop.epoch_length is None:
            raise PartsError(
                f"`{one['type']}` counts epochs in iterations, and the source does not tell how many an epoch has (`iter` is no "
                f"multiple of `epoch`); {ADVICE}."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the optimizer has not stepped
            if one.get("convert_to_iter_based"):
                return found.build_iter_from_epoch(groups, **given, epoch_length=self.stop.epoch_length)
            return found(groups, **given)

    def _values(self, distinct: list[_Start], of_slot: list[int], schedulers: list[Any], groups: Any) -> list[_Start]:
        """Return what the next step has; refuse if the last one did not have what the schedules say."""
        if not self.courses:
            last, now = self._run_up(schedulers, groups)
        else:
            last = [self._by_mmcv(start, *self.stop.last) for start in distinct]
            now = [self._by_mmcv(start, self.stop.epoch, self.stop.iteration) for start in distinct]
        for slot, number in zip(self.slots, of_slot):
            _check_last(slot, last[number], self.stop, bool(self.courses))
        return now

    def _by_mmcv(self, start: _Start, epoch: int, iteration: int) -> _Start:
        rate, momentum = start
        if RATE in self.courses:
            rate = self.courses[RATE].at(rate, epoch, iteration)
        if MOMENTUM in self.courses and momentum is not None:
            momentum = self.courses[MOMENTUM].at(momentum, epoch, iteration)
        return rate, momentum

    def _run_up(self, schedulers: list[Any], groups: Any) -> tuple[list[_Start], list[_Start]]:
        """Run schedules that were just built up to the place; return what the step before it and the next one have."""
        stop = self.stop
        epochs = iterations = 0
        last = groups.values()
        active = max((one.end for one in schedulers if not one.by_epoch), default=0)  # behind it iterations change nothing
        while iterations < min(stop.iteration, active):
            last = groups.values()
            iterations += 1
            _advance(schedulers, False)
            if stop.by_epoch and stop.epoch_length and iterations % stop.epoch_length == 0 and epochs < stop.epoch:
                epochs += 1
                _advance(schedulers, True)
        while epochs < stop.epoch:
            last = groups.values() if iterations < stop.iteration else last
            epochs += 1
            _advance(schedulers, True)
        behind = iterations < stop.iteration and not stop.at_end
        return groups.values() if behind else last, groups.values()

    def _place(self, scheduler: Any) -> None:
        """Set a scheduler to where it is after as many steps."""
        steps = self.stop.epoch if scheduler.by_epoch else self.stop.iteration
        scheduler._global_step = steps
        scheduler.last_step = max(min(steps, scheduler.end - 1) - scheduler.begin, -1)
        scheduler._last_value = [group[scheduler.param_name] for group in scheduler.optimizer.param_groups]

    def _check_on(self, schedulers: list[Any], groups: Any, distinct: list[_Start]) -> None:
        """Run the schedules on and compare what they set with what mmcv does."""
        for epoch, iteration in _run_on(schedulers, self.stop, self.length):
            for start, value in zip(distinct, groups.values()):
                expected = self._by_mmcv(start, epoch, iteration)
                if not all(_is_close(*pair) for pair in zip(value, expected)):
                    raise PartsError(
                        f"3.x has no schedule that goes on as `{' and '.join(self.courses)}` of the source's training does: in step "
                        f"{iteration + 1} it would have {_words(value)}, and 2.x {_words(expected)}; {ADVICE}."
                    )

    def _notes(self, states: list[dict[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        if not states:
            return ()
        if not self.courses:
            return (
                f"The source does not hold the config of its training, so its schedules are those of the new config, after {self.stop.words}; "
                "--legacy-config names the config of 2.x, whose schedules are then taken.",
            )
        groups = _groups([(1.0, 0.9)])
        differ = []
        for number, (one, state) in enumerate(zip(wanted, states)):
            if one.get("convert_to_iter_based") and self.stop.epoch_length is None:
                continue
            theirs = self._built(as_built(dict(one), self.stop, self.length), groups).state_dict()
            differ += [
                f"`param_scheduler.{number}.{name}` {_short(theirs[name])} (2.x: {_short(state[name])})"
                for name in theirs
                if name not in _PROGRESS and name in state and not _is_same(theirs[name], state[name])
            ]
        if not differ:
            return ()
        return (
            f"The new config has {', '.join(differ)}. The training goes on with 2.x's, for mmengine takes schedules from the "
            "checkpoint.",
        )


#: Initial rate of a group, and its momentum where that is scheduled.
_Start = Tuple[float, Optional[float]]


def _start(slot: Mapping[str, Any], has_momentum: bool) -> _Start:
    rate = float(slot.get("initial_lr", slot["lr"]))
    return rate, slot.get("initial_momentum", _momentum(slot)) if has_momentum else None


def _momentum(slot: Mapping[str, Any]) -> Any:
    return slot.get("momentum", (slot.get("betas") or [None])[0])


def _groups(starts: Sequence[_Start]) -> Any:
    """Return an optimizer that steps nothing, with a group for each start."""
    import torch

    class Groups(torch.optim.Optimizer):
        def __init__(self) -> None:
            has_momentum = all(value is not None for _, value in starts)
            given = [dict(params=[torch.zeros(1)], lr=rate, **_named(value, has_momentum)) for rate, value in starts]
            super().__init__(given, dict(lr=0.0, **_named(0.0, has_momentum)))

        def step(self) -> None:
            """Do nothing."""

        def values(self) -> list[_Start]:
            return [(group["lr"], group.get("momentum")) for group in self.param_groups]

        def give(self, values: Sequence[_Start]) -> None:
            for group, (rate, momentum) in zip(self.param_groups, values):
                group["lr"] = rate
                if momentum is not None:
                    group["momentum"] = momentum

    return Groups()


def _named(momentum: float | None, has_momentum: bool) -> dict[str, Any]:
    return dict(momentum=momentum) if has_momentum else {}


def _state(scheduler: Any, of_slot: Sequence[int], by_betas: bool) -> dict[str, Any]:
    """Return a scheduler's state, with a value for each slot and nothing but plain data."""
    state = dict(scheduler.state_dict())
    for name in ("base_values", "_last_value"):
        state[name] = [state[name][number] for number in of_slot]
    if "use_betas" in state:
        state["use_betas"] = by_betas
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in state.items()}


def _settings(slot: Mapping[str, Any], now: _Start, start: _Start, scheduled: set[str]) -> dict[str, Any]:
    """Return what changes in the settings of a group before the next step, as mmengine's schedulers look for it."""
    found: dict[str, Any] = {}
    if "lr" in scheduled:
        found.update(lr=now[0], initial_lr=start[0])
    if "momentum" in scheduled:
        found.update(momentum=now[1], initial_momentum=start[1])
        if "betas" in slot:
            found["betas"] = (now[1], slot["betas"][1])
    return found


def _advance(schedulers: list[Any], by_epoch: bool) -> None:
    for scheduler in schedulers:
        if scheduler.by_epoch == by_epoch:
            scheduler.step()


def _run_on(schedulers: list[Any], stop: Stop, length: int | None) -> Iterator[tuple[int, int]]:
    """Run schedules on from a place; yield epoch and iteration of the steps, in the order in which they are taken.

    Where the length of an epoch is not known, any will do for schedules that count epochs.
    """
    size = stop.epoch_length or 3
    epoch, iteration = stop.epoch, stop.iteration
    left = size  # an epoch that was not complete begins again
    last = None if length is None else length if not stop.by_epoch else iteration + (length - epoch) * size
    for _ in range(_STEPS):
        if (last is not None and iteration >= last) or (stop.by_epoch and length is not None and epoch >= length):
            return
        yield epoch, iteration
        iteration, left = iteration + 1, left - 1
        _advance(schedulers, False)
        if stop.by_epoch and not left:
            epoch, left = epoch + 1, size
            _advance(schedulers, True)
    if not stop.by_epoch or length is None or any(not one.by_epoch and iteration < one.end < 10**9 for one in schedulers):
        return
    while epoch + 1 < length:
        epoch, iteration = epoch + 1, iteration + left
        left = size
        _advance(schedulers, True)
        yield epoch, iteration


def _check_last(slot: Mapping[str, Any], last: _Start, stop: Stop, is_known: bool) -> None:
    """Refuse schedules that do not give a group what it had in the last step."""
    if stop.iteration < 1:
        return
    rate, momentum = last
    had = (float(slot["lr"]), _momentum(slot) if momentum is not None else None)
    if _is_close(had[0], rate) and (momentum is None or _is_close(had[1], momentum)):
        return
    whose = "`lr_config` of its config" if is_known else "the new config"
    advice = "name the config that it was trained with, --legacy-config OLD.py" if not is_known else "check the config"
    raise PartsError(
        f"In {stop.words} a group of the source's optimizer had {_words(had)}, and by {whose} that is {_words((rate, momentum))}: these "
        f"are other schedules; {advice}, or {ADVICE}."
    )


def _is_close(one: Any, two: Any) -> bool:
    return one is two or (one is not None and two is not None and math.isclose(one, two, rel_tol=_CLOSE, abs_tol=1e-300))


def _is_same(one: Any, two: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(two, (int, float)):
        return _is_close(one, two)
    return bool(one == two)


def _words(value: _Start) -> str:
    rate, momentum = value
    return f"the rate {rate:.6g}" + ("" if momentum is None else f" and the momentum {momentum:.6g}")


def _short(value: Any) -> str:
    return str(sorted(value)) if isinstance(value, Mapping) else f"{value:.6g}" if isinstance(value, float) else str(value)
