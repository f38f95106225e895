"""Copy out of a pickle's content what is text, numbers, lists and dicts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from converters.errors import MalformedError
from converters.inert_pickle import Foreign, NumpyArray

_PLAIN = (str, int, float, bool, type(None))
_MOST_ITEMS, _DEEPEST = 200_000, 64
_LEFT_OUT = object()


def plain(value: Any) -> Any:
    """Copy the part of a pickle's content that is text, numbers, lists and dicts with text as keys.

    Dicts and lists of other classes, such as mmengine's `ConfigDict`, become plain ones, and numpy's arrays lists;
    items of any other kind, and what is nested deeper than 64 levels, are left out.

    Raises:
        MalformedError: If that makes more than 200 000 items.
        CheckpointError, OSError: If an array cannot be read.
    """
    found = _Copy().of(value, 0)
    return None if found is _LEFT_OUT else found


class _Copy:
    def __init__(self) -> None:
        self._left = _MOST_ITEMS

    def of(self, value: Any, depth: int) -> Any:
        if type(value) in _PLAIN:
            return value
        pairs, items = _contents(value)
        if depth == _DEEPEST or pairs is None and items is None:
            return _LEFT_OUT
        self._left -= len(pairs or ()) + len(items or ())
        if self._left < 0:
            raise MalformedError(f"its metadata unfold to more than {_MOST_ITEMS} items")
        if pairs is not None:
            kept = ((key, self.of(item, depth + 1)) for key, item in pairs if type(key) is str)
            return {key: item for key, item in kept if item is not _LEFT_OUT}
        copied = (self.of(item, depth + 1) for item in items or ())
        return (tuple if type(value) is tuple else list)(item for item in copied if item is not _LEFT_OUT)


def _contents(value: Any) -> tuple[Collection[Any] | None, Collection[Any] | None]:
    """Return the pairs of a dict or the items of a list, and None for the other, or for both."""
    if isinstance(value, dict):
        return value.items(), None
    if isinstance(value, (list, tuple)):
        return None, value
    if isinstance(value, NumpyArray) and value.values is not None and value.values.numel() <= _MOST_ITEMS:
        numbers = value.values.tolist()
        return None, numbers if isinstance(numbers, list) else [numbers]
    if not isinstance(value, Foreign) or value.args is None:
        return None, None
    given = value.args[0] if len(value.args) == 1 else None
    if isinstance(given, dict) and value.name.endswith("Dict"):
        return [*given.items(), *value.pairs], None
    if value.pairs or value.name.endswith("Dict"):
        return value.pairs, None
    return None, value.items or None
