"""Copy out of a pickle's content what is text, numbers, lists and dicts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from converters.errors import MalformedError
from converters.inert_pickle import Foreign, NumpyArray

_NUMBERS = (int, float, bool, type(None))
_MOST, _DEEPEST = 500_000, 64  # a pickle of a few bytes can mean more than any memory holds
_LEFT_OUT = object()


def plain(value: Any) -> Any:
    """Copy the part of a pickle's content that is text, numbers, lists, tuples and dicts with text as keys.

    Dicts and lists of other classes, such as mmengine's `ConfigDict`, become plain ones, and numpy's arrays lists;
    items of any other kind, and what is nested deeper than 64 levels, are left out.

    Raises:
        MalformedError: If that makes more than 500 000 items and characters.
        CheckpointError, OSError: If an array cannot be read.
    """
    found = _Copy().of(value, 0)
    return None if found is _LEFT_OUT else found


class _Copy:
    def __init__(self) -> None:
        self._left = _MOST

    def of(self, value: Any, depth: int) -> Any:
        self._spend(1)
        if type(value) is str:
            return self._text(value)
        if type(value) in _NUMBERS:
            return value
        if depth == _DEEPEST:
            return _LEFT_OUT
        if isinstance(value, NumpyArray) and value.values is not None:
            self._spend(value.values.numel())
            return value.values.tolist()
        pairs, items = _contents(value)
        if pairs is not None:
            copied = ((self._text(key), self.of(item, depth + 1)) for key, item in pairs if type(key) is str)
            return {key: item for key, item in copied if item is not _LEFT_OUT}
        if items is not None:
            kept = [item for item in (self.of(item, depth + 1) for item in items) if item is not _LEFT_OUT]
            return tuple(kept) if type(value) is tuple else kept
        return _LEFT_OUT

    def _text(self, text: str) -> str:
        self._spend(len(text))
        return text.encode("utf-8", "backslashreplace").decode()  # halves of characters stand in no file

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise MalformedError(f"its metadata unfold to more than {_MOST} items and characters")


def _contents(value: Any) -> tuple[Iterable[tuple[Any, Any]] | None, Iterable[Any] | None]:
    """Return the pairs of a dict or the items of a list, and None for the other, or for both."""
    if isinstance(value, dict):
        return value.items(), None
    if isinstance(value, (list, tuple)):
        return None, value
    if not isinstance(value, Foreign) or value.args is None:
        return None, None
    given = value.args[0] if len(value.args) == 1 else None
    if isinstance(given, dict) and value.name.endswith("Dict"):
        return [*given.items(), *value.pairs], None
    if value.pairs or value.name.endswith("Dict"):
        return value.pairs, None
    return None, value.items or None
