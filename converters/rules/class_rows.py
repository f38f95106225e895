"""Tensors that have rows for classes: one for each, as most have, or several, or one more for the background.

Which tensors is a text: a pattern of keys, and behind it `x4` where each class has four rows, `+1` where one more comes
last, as of a softmax over classes and background: `head.fc_reg.* x4`, `head.fc_cls.* +1`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from converters.rules.pattern import Pattern


class HasShape(Protocol):
    """A tensor, or what is known of one."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class ClassRows:
    """Which tensors have rows for classes, and how many.

    Attributes:
        pattern: Of their keys.
        each: Rows for each class.
        more: Rows behind them that are of no class.
    """

    pattern: Pattern
    each: int = 1
    more: int = 0

    @classmethod
    def of(cls, text: str) -> ClassRows:
        """Read the text of a family."""
        pattern, *forms = text.split()
        each, more = 1, 0
        for form in forms:
            if form[0] == "x":
                each = int(form[1:])
            else:
                more = int(form)
        return cls(Pattern(pattern), each, more)

    def rows(self, classes: int) -> int:
        """Return how many rows there are for so many classes."""
        return self.each * classes + self.more

    def classes(self, rows: int) -> int:
        """Return how many classes so many rows are for; of a number that does not fit, one more than do."""
        return -(-(rows - self.more) // self.each)


def held(keys: Iterable[str], class_keys: Iterable[str]) -> dict[str, ClassRows]:
    """Return those of the keys that have rows for classes, each with its form; the first that fits decides."""
    forms = [ClassRows.of(text) for text in class_keys]
    found = ((key, next((form for form in forms if form.pattern.match(key) is not None), None)) for key in keys)
    return {key: form for key, form in found if form is not None}


def class_counts(tensors: Mapping[str, HasShape], class_keys: Iterable[str]) -> dict[int, list[str]]:
    """Group the tensors that have rows for classes by the number of classes that their rows tell."""
    counts: dict[int, list[str]] = {}
    for key, form in held((key for key in tensors if tensors[key].shape), class_keys).items():
        counts.setdefault(form.classes(tensors[key].shape[0]), []).append(key)
    return counts
