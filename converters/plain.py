"""Read plain values out of inert stand-ins: numbers of numpy, counters, config dicts, histories of mmengine.

A stand-in remembers what a pickle would have made of it, and nothing of that is ever run: its arguments are looked at.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converters.inert_pickle import Foreign
from converters.stored import ITEM_SIZES, StoredTensor

_SCALARS = (str, int, float, bool, complex, bytes, type(None))
_DICTS = ("mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict", "addict.addict.Dict")
_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
_NUMBER = {f"{module}.scalar" for module in ("numpy.core.multiarray", "numpy._core.multiarray")}
_ARRAY = {f"{module}._reconstruct" for module in ("numpy.core.multiarray", "numpy._core.multiarray")}
#: numpy's short name of a dtype to torch's name and the format that `struct` reads it by.
_DTYPES = {
    "f8": ("float64", "d"),
    "f4": ("float32", "f"),
    "f2": ("float16", "e"),
    "i8": ("int64", "q"),
    "i4": ("int32", "i"),
    "i2": ("int16", "h"),
    "i1": ("int8", "b"),
    "u1": ("uint8", "B"),
    "b1": ("bool", "?"),
}


@dataclass(frozen=True)
class Plain:
    """A value without stand-ins, and what could not be read.

    Attributes:
        value: Containers, numbers, text and tensors; None where nothing was left of it.
        left: For each stand-in that was left out: its path in the value, dotted, and the name of the global.
    """

    value: Any
    left: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class History:
    """What mmengine logged of one number: the values [n] and by how many samples each was counted [n]."""

    values: StoredTensor
    counts: StoredTensor


def plain(value: Any, path: str = "") -> Plain:
    """Copy a value without its stand-ins; those that are numbers, counters or config dicts are read.

    Items of dicts and lists that are anything else are left out, and told.
    """
    left: list[tuple[str, str]] = []
    found = _read(value, path, left)
    return Plain(None if found is _NOTHING else found, tuple(left))


_NOTHING = object()


def _read(value: Any, path: str, left: list[tuple[str, str]]) -> Any:
    if type(value) in _SCALARS or isinstance(value, StoredTensor):
        return value
    if isinstance(value, Foreign):
        value = _opened(value)
        if not isinstance(value, Foreign):
            return _read(value, path, left)
    if isinstance(value, dict):
        kind = Counter if isinstance(value, Counter) else dict
        items = ((key, _read(item, f"{path}.{key}".lstrip("."), left)) for key, item in value.items() if _is_key(key))
        return kind({key: item for key, item in items if item is not _NOTHING})
    if isinstance(value, (list, tuple)):
        members = [_read(item, f"{path}.{index}".lstrip("."), left) for index, item in enumerate(value)]
        return type(value)(item for item in members if item is not _NOTHING)
    left.append((path, getattr(value, "name", None) or type(value).__name__))
    return _NOTHING


def _is_key(key: Any) -> bool:
    return type(key) in (str, int, float, bool)


def _opened(stand_in: Foreign) -> Any:
    """Return what a stand-in of a known kind holds, one level deep; itself where it is of no known kind."""
    if stand_in.name in _NUMBER:
        number = _number(stand_in)
        return stand_in if number is None else number
    first = stand_in.args[0] if stand_in.args else None
    if stand_in.name == "collections.Counter" and isinstance(first, dict):
        return Counter(first) if all(type(times) is int for times in first.values()) else stand_in
    if stand_in.name in _DICTS and (stand_in.pairs or isinstance(first, dict)):
        return {**(first if isinstance(first, dict) else {}), **dict(stand_in.pairs)}
    return stand_in


def history(value: Any) -> History | None:
    """Read a stand-in of mmengine's HistoryBuffer; None if it is none."""
    if not isinstance(value, Foreign) or value.name != _HISTORY or not isinstance(value.state, Mapping):
        return None
    values, counts = (_array(value.state.get(name)) for name in ("_log_history", "_count_history"))
    if values is None or counts is None or values.shape != counts.shape or values.ndim != 1:
        return None
    return History(values, counts)


def _number(stand_in: Foreign) -> int | float | bool | None:
    """Read a numpy scalar."""
    if len(stand_in.args) != 2:
        return None
    name, data = _dtype(stand_in.args[0]), _bytes(stand_in.args[1])
    if name is None or data is None:
        return None
    dtype, form = _DTYPES[name]
    return struct.unpack(f"<{form}", data)[0] if len(data) == ITEM_SIZES[dtype] else None


def _array(stand_in: Any) -> StoredTensor | None:
    """Read a numpy array of numbers."""
    state = stand_in.state if isinstance(stand_in, Foreign) and stand_in.name in _ARRAY else None
    if not isinstance(state, tuple) or len(state) != 5:
        return None
    _, shape, kind, by_columns, held = state
    name, data = _dtype(kind), _bytes(held)
    if name is None or data is None or not isinstance(shape, tuple) or by_columns and len(shape) > 1:
        return None
    dtype = _DTYPES[name][0]
    if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) * ITEM_SIZES[dtype] != len(data):
        return None
    return StoredTensor.of(dtype, shape, data)


def _dtype(stand_in: Any) -> str | None:
    """Return the short name of a little-endian dtype of numpy, None for any other."""
    if not isinstance(stand_in, Foreign) or stand_in.name != "numpy.dtype" or not stand_in.args:
        return None
    order = stand_in.state[1] if isinstance(stand_in.state, tuple) and len(stand_in.state) > 1 else "|"
    return stand_in.args[0] if stand_in.args[0] in _DTYPES and order in ("<", "|", "=") else None


def _bytes(value: Any) -> bytes | None:
    """Return bytes, which pickles of protocol 2 spell as text in Latin-1."""
    if isinstance(value, Foreign) and value.name == "_codecs.encode" and len(value.args) == 2:
        text, encoding = value.args
        if isinstance(text, str) and encoding == "latin1":
            try:
                return text.encode("latin1")
            except UnicodeEncodeError:
                return None
    return value if isinstance(value, bytes) else None
