"""Random draws: nothing is decided, so none can be tried; what one asked for is compared like any other number."""

from __future__ import annotations

from collections.abc import Collection

from legacy_adapters.recording.kinds import DRAWN

from .rule import DecisionKind


class Draw(DecisionKind):
    """A random draw; it rests on what was asked for, such as a shape and bounds."""

    title = "random draws"
    #: slot of what was drawn
    slot = DRAWN

    def rests_on(self, slots: Collection[str]) -> bool:
        return bool(slots)
