"""Check plain data that came out of a file against the annotations of the dataclass that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def misfit(kind: type, data: Mapping[str, Any]) -> str | None:
    """Name the first field of a dataclass whose value is not of the annotated kind, or None if all are.

    Understood are `str`, `int`, `bool`, `None`, `X | Y`, `Literal`, `tuple[X, ...]`, `Mapping[str, Any]` and other
    classes.
    """
    return next((name for name, hint in _hints(kind).items() if name in data and not _fits(data[name], hint)), None)


_hints = lru_cache(get_type_hints)


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(hint))
    if origin is Literal:
        return type(value) is str and value in get_args(hint)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if origin is not None:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    return type(value) is hint
