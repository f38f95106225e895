"""Go on with a training of MMDetection 2.x in 3.x: which schedules it had, and which the new config has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from converters.errors import PartsError
from converters.mmcv1 import stops
from converters.mmcv1.rates import MOMENTUM, RATE, Course
from converters.mmcv1.saved import ADVICE
from converters.mmcv1.stops import Stop, counts_epochs
from converters.mmcv1.taken_up import Goal, TakenUp

from .migration.reading import read
from .migration.schedules import exact
from .model_configs import path_of
from .schedules_at import Schedules, as_built


class MMDet2Resumption:
    """Take up trainings of MMDetection 2.x."""

    def goal(self, new: str) -> Goal:
        """Read a config of 3.x.

        Raises:
            FamilyError: if it cannot be read.
        """
        config = read(str(path_of(new)), "3.x")
        loop = config.get("train_cfg") or {}
        return Goal("max_iters" not in loop and "IterBased" not in str(loop.get("type")), config)

    def old(self, legacy: str) -> dict[str, Any]:
        """Read a config of 2.x.

        Raises:
            FamilyError: if it cannot be read.
        """
        return read(legacy, "2.x")

    def take_up(
        self, old: Mapping[str, Any] | None, goal: Goal, stop: Stop, slots: Sequence[Mapping[str, Any]]
    ) -> TakenUp:
        """Make the states of the schedulers of the new config and the rates of the next step.

        Args:
            old: the config of 2.x; None if it is not known: then the schedules are those of the new config.
            goal: what the new config says.
            stop: where the training stopped.
            slots: settings of each group of the optimizer as the last step had them, and of the base settings.

        Raises:
            PartsError: if 3.x has no schedules that go on as the old ones do.
        """
        try:
            return _taken_up(old, goal, stop, slots)
        except (KeyError, TypeError, ValueError, AssertionError, ZeroDivisionError) as error:  # of settings that nobody takes
            whose = "the new config" if old is None else "the source's training"
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise PartsError(f"The schedules of {whose} cannot be made ({told}); {ADVICE}.") from error


def _taken_up(
    old: Mapping[str, Any] | None, goal: Goal, stop: Stop, slots: Sequence[Mapping[str, Any]]
) -> TakenUp:
    given = goal.config.get("param_scheduler") or []
    wanted = [dict(one) for one in (given if isinstance(given, (list, tuple)) else [given])]
    length = _of_loop(goal.config) if old is None else stops.length(old)
    if old is None:
        made = [as_built(one, stop, length) for one in wanted]
        courses = {}
    else:
        courses = dict(courses_of(old, stop))
        for course in courses.values():
            course.check()
        made = _in_order(exact(old, counts_epochs(old), length, stop.epoch_length), wanted)
    return Schedules(made, courses, stop, slots, length).taken_up(wanted)


def _of_loop(config: Mapping[str, Any]) -> int | None:
    loop = config.get("train_cfg") or {}
    return loop.get("max_epochs", loop.get("max_iters"))


def courses_of(old: Mapping[str, Any], stop: Stop) -> Iterator[tuple[str, Course]]:
    """Yield what mmcv sets over a training, by the section of the config of 2.x."""
    by_epoch, whole = counts_epochs(old), stops.length(old)
    iterations = whole
    if by_epoch and whole is not None:
        iterations = None if stop.epoch_length is None else whole * stop.epoch_length
    for section in (RATE, MOMENTUM):
        if old.get(section):
            usual = dict(by_epoch=by_epoch or section == MOMENTUM)  # the runner says it of rates only
            yield section, Course(section, {**usual, **old[section]}, whole if by_epoch else None, iterations, stop.epoch_length)


def _is_by_epoch(one: Mapping[str, Any]) -> bool:
    return bool(one.get("by_epoch", True)) and not one.get("convert_to_iter_based")


def _kind(one: Mapping[str, Any]) -> tuple[str, bool]:
    return str(one["type"]).rpartition(".")[2], _is_by_epoch(one)


def _told(given: Sequence[Mapping[str, Any]]) -> str:
    words = [f"{kind} by {'epoch' if by_epoch else 'iteration'}" for kind, by_epoch in map(_kind, given)]
    return ", ".join(words) or "none"


def _in_order(made: list[dict[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put the schedules of 2.x into the order of the new config's, which must be of the same classes."""
    left = list(made)
    ordered = []
    for one in wanted:
        twin = next((other for other in left if _kind(other) == _kind(one)), None)
        if twin is not None:
            left.remove(twin)
            ordered.append(twin)
    if left or len(ordered) != len(wanted):
        raise PartsError(
            f"The schedules of the source's training are, for 3.x, {_told(made)}, and the new config has {_told(wanted)}; "
            f"`ddq-convert config` writes a config that has the same. Or {ADVICE}."
        )
    return ordered


RESUMPTION = MMDet2Resumption()
