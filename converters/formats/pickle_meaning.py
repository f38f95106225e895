"""What the machine that reads a pickle asks for: what names mean, and which keys it may hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from converters.errors import MalformedError

_MOST_ODD_KEYS = 4096  # tuples and other keys that can be made to collide
_PLAIN_KEYS = (str, bytes, bool, float, type(None))
_ODD_KEYS = (int, complex)
_PARTS = _PLAIN_KEYS + _ODD_KEYS


class Keys:
    """Refuses keys of dicts and sets that are not hashed quickly, and too many that can be made to collide."""

    def __init__(self) -> None:
        self._odd = 0

    def check(self, keys: Iterable[Any]) -> None:
        """Look at keys before they are hashed.

        Raises:
            MalformedError: If they would take long.
        """
        for key in keys:
            kind = type(key)
            if kind is str or kind in _PLAIN_KEYS or kind is int and -(2**60) < key < 2**60:
                continue
            if kind in _ODD_KEYS or kind is tuple and len(key) <= 16 and all(type(part) in _PARTS for part in key):
                self._odd += 1
                if self._odd > _MOST_ODD_KEYS:
                    raise MalformedError(f"its pickle has more than {_MOST_ODD_KEYS} keys besides text and numbers")
            elif kind.__hash__ is not object.__hash__:
                raise MalformedError(f"its pickle has a {kind.__name__} as a key, expected text or a number")


class Meaning(Protocol):
    """What a pickle's names stand for; each function returns data and has no other effect.

    Attributes:
        keys: Looks at all keys of the pickle.
    """

    keys: Keys

    def find(self, module: str, name: str) -> Any:
        """Return what stands for a global."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what stands for the result of calling what `find` or `call` returned."""

    def build(self, thing: Any, state: Any) -> None:
        """Take note of a state that is to be set."""

    def extend(self, thing: Any, items: list[Any]) -> None:
        """Take note of items to be appended or added to what is neither a list nor a set."""

    def update(self, thing: Any, items: list[Any]) -> None:
        """Take note of keys and values, in turn, to be set in what is not a dict."""

    def persistent(self, pid: Any) -> Any:
        """Return what stands for a persistent id."""
