"""What a family adds to go on with a training of mmcv 1.x in 3.x; plain data, that knows no code base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from converters.mmcv1.stops import Stop


@dataclass(frozen=True)
class Goal:
    """What the config of 3.x makes of a training.

    Attributes:
        by_epoch: Its loop counts epochs.
        config: As plain data.
    """

    by_epoch: bool
    config: Mapping[str, Any]


@dataclass(frozen=True)
class TakenUp:
    """Schedules for 3.x's Runner at the place where 2.x stopped.

    Attributes:
        states: What each scheduler of the new config loads, in its order.
        settings: For each slot (group, or base settings behind them) the settings that the next step has.
        notes: What the user should know, in sentences.
    """

    states: list[dict[str, Any]]
    settings: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


class Resumption(Protocol):
    """What a family knows of trainings of 2.x that go on in 3.x."""

    def goal(self, new: str) -> Goal:
        """Read the new config."""

    def old(self, legacy: str) -> dict[str, Any]:
        """Read a config of 2.x that is named, in place of the one in the checkpoint."""

    def take_up(
        self, old: Mapping[str, Any] | None, goal: Goal, stop: Stop, slots: Sequence[Mapping[str, Any]]
    ) -> TakenUp:
        """Make the states of the new config's schedulers, and the rates of the next step."""
