"""Rules that leave tensors as they are: what becomes of keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

Shape = tuple[int, ...]


class OfOne:
    """A rule with one source and at most one target."""

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def targets(self) -> tuple[str, ...]:
        return () if self.target is None else (self.target,)


class _OfNames(OfOne):
    """A rule that leaves tensors as they are."""

    changes_tensors: ClassVar[bool] = False
    fault: ClassVar[None] = None
    is_computable: ClassVar[bool] = True

    @property
    def text(self) -> str:
        return f"{self.action} {self.source}"

    def shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        return tuple(shapes)


@dataclass(frozen=True)
class Rename(_OfNames):
    """Give every key that matches `source` the name that `target` makes of it."""

    source: str
    target: str
    action: ClassVar[str] = "rename"

    @property
    def text(self) -> str:
        return f"{self.action} {self.source} -> {self.target}"

    def inverse(self) -> Rename:
        return Rename(self.target, self.source)


@dataclass(frozen=True)
class Keep(_OfNames):
    """Keep the name of every key that matches `pattern`."""

    pattern: str
    action: ClassVar[str] = "keep"

    @property
    def source(self) -> str:
        return self.pattern

    @property
    def target(self) -> str:
        return self.pattern

    def inverse(self) -> Keep:
        return self


@dataclass(frozen=True)
class Drop(_OfNames):
    """Leave out every key that matches `pattern`, for a written reason."""

    pattern: str
    reason: str
    action: ClassVar[str] = "drop"
    target: ClassVar[None] = None

    @property
    def source(self) -> str:
        return self.pattern

    def inverse(self) -> None:
        """Return None: what was dropped cannot be made again."""


@dataclass(frozen=True)
class DropDuplicateOf(_OfNames):
    """Leave out every key that repeats its `twin`, another key of the same source, bit by bit."""

    pattern: str
    twin: str
    reason: str
    action: ClassVar[str] = "drop_duplicate"
    target: ClassVar[None] = None

    @property
    def source(self) -> str:
        return self.pattern

    @property
    def text(self) -> str:
        return f"{self.action} {self.source} of {self.twin}"

    def inverse(self) -> None:
        """Return None: a duplicate is not made again, for its twin carries the weights."""
