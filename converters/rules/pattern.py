"""Dotted key patterns: `*` is exactly one segment, `**` is one or more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile

_ONE = r"([^.]+)"
_MANY = r"([^.]+(?:\.[^.]+)*)"


@dataclass(frozen=True)
class Cut:
    """A module path that covers the head of a pattern.

    Attributes:
        bindings: What the wildcards of the head stand for, in order.
        rest: The segments that the keys of the module still have to match; a leading `**` may go on from the head.
        goes_on: True where the cut lies inside a `**`, whose first part is the last binding.
    """

    bindings: tuple[str, ...]
    rest: tuple[str, ...]
    goes_on: bool


@dataclass(frozen=True)
class Pattern:
    """One pattern such as `head.branches.*.weight`."""

    text: str

    @cached_property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.text.split("."))

    @cached_property
    def head(self) -> tuple[str, ...]:
        """The segments in front of the first wildcard."""
        return tuple(takewhile(lambda segment: "*" not in segment, self.segments))

    @cached_property
    def wildcards(self) -> tuple[str, ...]:
        return tuple(segment for segment in self.segments if segment in ("*", "**"))

    @cached_property
    def problem(self) -> str | None:
        """Say what is wrong with the pattern itself, or None."""
        if any(segment == "" for segment in self.segments):
            return "has an empty segment"
        if any("*" in segment and segment not in ("*", "**") for segment in self.segments):
            return "has a wildcard inside a segment"
        if self.wildcards.count("**") > 1:
            return "has more than one `**`, so a match would be ambiguous"
        return None

    def match(self, key: str) -> tuple[str, ...] | None:
        """Return what the wildcards stand for, in order, or None where `key` does not match."""
        found = _regex(self.segments).fullmatch(key)
        return None if found is None else found.groups()

    def fill(self, bindings: tuple[str, ...]) -> str:
        """Put `bindings` in place of the wildcards, in order."""
        return ".".join(fill_segments(self.segments, bindings))

    def cuts(self, path: str) -> Iterator[Cut]:
        """Yield every way in which keys below the module `path` can match this pattern."""
        for index, segment in enumerate(self.segments):
            if index:
                head = _regex(self.segments[:index]).fullmatch(path)
                if head is not None:
                    yield Cut(head.groups(), self.segments[index:], goes_on=False)
            if segment == "**":
                head = _regex(self.segments[: index + 1]).fullmatch(path)
                if head is not None:
                    yield Cut(head.groups(), self.segments[index:], goes_on=True)


def fill_segments(segments: tuple[str, ...], bindings: tuple[str, ...]) -> list[str]:
    """Put `bindings` in place of the first wildcards; wildcards beyond them stay."""
    left = iter(bindings)
    return [next(left, segment) if segment in ("*", "**") else segment for segment in segments]


def intersect(first: Pattern, second: Pattern) -> bool:
    """Tell whether some key matches both patterns, exactly."""
    for a, b in zip(first.segments, second.segments):
        if "*" in a or "*" in b:
            break
        if a != b:
            return False
    return _intersect(_with_stars(first.segments), _with_stars(second.segments))


@lru_cache(maxsize=4096)
def _regex(segments: tuple[str, ...]) -> re.Pattern[str]:
    parts = {"*": _ONE, "**": _MANY}
    return re.compile(r"\.".join(parts.get(segment, re.escape(segment)) for segment in segments))


def _with_stars(segments: tuple[str, ...]) -> tuple[str, ...]:
    """Write `**` as `*` and a star that takes zero or more segments, marked `+`."""
    return tuple(part for segment in segments for part in (("*", "+") if segment == "**" else (segment,)))


def _intersect(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Dynamic programme over the two tails, filled from their ends."""
    # meet[i][j]: some sequence of segments matches both first[i:] and second[j:]
    meet = [[False] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in range(len(first), -1, -1):
        for j in range(len(second), -1, -1):
            meet[i][j] = _meets(first, second, i, j, meet)
    return meet[0][0]


def _meets(first: tuple[str, ...], second: tuple[str, ...], i: int, j: int, meet: list[list[bool]]) -> bool:
    a = first[i] if i < len(first) else None
    b = second[j] if j < len(second) else None
    if a is None and b is None:
        return True
    if a == "+" and (meet[i + 1][j] or (b is not None and meet[i][j + 1])):
        return True
    if b == "+" and (meet[i][j + 1] or (a is not None and meet[i + 1][j])):
        return True
    if a is None or b is None or "+" in (a, b):
        return False
    return (a == b or "*" in (a, b)) and meet[i + 1][j + 1]
