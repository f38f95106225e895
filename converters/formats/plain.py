"""Copy out of a pickle's content what is plain: text, numbers, lists and dicts, and tensors where they are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from converters.errors import MalformedError
from converters.formats.stand_ins import Foreign, NumpyArray
from converters.formats.stored import StoredTensor

_NUMBERS = (int, float, bool, type(None))
_MOST, _DEEPEST = 500_000, 64  # a pickle of a few bytes can mean more than any memory holds
_LONGEST_NAME = 100  # characters of a key, where a place is named
_LEFT_OUT = object()


@dataclass(frozen=True)
class Copied:
    """The plain part of a value.

    Attributes:
        value: It, None if there was none.
        left_out: What is not in it: each place, dotted, and the kind of what stood there.
    """

    value: Any
    left_out: tuple[tuple[str, str], ...]


def plain(value: Any) -> Copied:
    """Copy the part of a pickle's content that is text, numbers, lists, tuples and dicts with text as keys.

    Dicts and lists of other classes, such as mmengine's `ConfigDict`, become plain ones, and numpy's arrays lists;
    items of any other kind, and what is nested deeper than 64 levels, are left out.

    Raises:
        MalformedError: If that makes more than 500 000 items and characters.
        CheckpointError, OSError: If an array cannot be read.
    """
    return _copied(_Copy(text_keys=True, also=()), value)


def copied(value: Any) -> Copied:
    """Copy what `plain` does and also tensors, bytes, counters and dicts with numbers as keys; tell what is left out.

    All of that is what torch loads with `weights_only`.

    Raises:
        MalformedError, CheckpointError, OSError: As `plain` does.
    """
    return _copied(_Copy(text_keys=False, also=(StoredTensor, bytes, complex)), value)


def _copied(copy: _Copy, value: Any) -> Copied:
    found = copy.of(value, 0, "")
    return Copied(None if found is _LEFT_OUT else found, tuple(copy.left_out))


class _Copy:
    def __init__(self, text_keys: bool, also: tuple[type, ...]) -> None:
        self._left = _MOST
        self._keys = (str,) if text_keys else (str, int, float, bool)
        self._taken = _NUMBERS + also
        self.left_out: list[tuple[str, str]] = []

    def of(self, value: Any, depth: int, path: str) -> Any:
        self._spend(1)
        if type(value) is str:
            return self._text(value)
        if type(value) in self._taken:
            return value
        if depth == _DEEPEST:
            return self._leave(value, path)
        if isinstance(value, NumpyArray) and value.values is not None:
            self._spend(value.values.numel())
            return value.values.tolist()
        pairs, items = _contents(value)
        if pairs is not None:
            kept = {}
            for key, item in pairs:
                found = self._below(item, depth, path, key) if type(key) in self._keys else self._leave(key, path)
                if found is not _LEFT_OUT:
                    kept[self._text(key) if type(key) is str else key] = found
            return Counter(kept) if type(value) is Counter else kept
        if items is not None:
            copied = (self._below(item, depth, path, index) for index, item in enumerate(items))
            return (tuple if type(value) is tuple else list)(item for item in copied if item is not _LEFT_OUT)
        return self._leave(value, path)

    def _text(self, text: str) -> str:
        self._spend(len(text))
        return text.encode("utf-8", "backslashreplace").decode()  # halves of characters stand in no file

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise MalformedError(f"its metadata unfold to more than {_MOST} items and characters")

    def _below(self, item: Any, depth: int, path: str, key: object) -> Any:
        name = str(key)[:_LONGEST_NAME]
        return self.of(item, depth + 1, f"{path}.{name}" if path else name)

    def _leave(self, value: Any, path: str) -> Any:
        self._spend(len(path))
        self.left_out.append((path, value.name if isinstance(value, Foreign) else type(value).__name__))
        return _LEFT_OUT


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
