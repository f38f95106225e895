"""What a model takes and gives, as tensors in lists and dicts: data samples, dataclasses and other objects are opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Dict, List, Set

import numpy as np
import torch
from torch import nn

_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)
#: What says nothing that a tensor could hold.
_NOTHING = (type(None), type, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Generator)
_DEEPEST = 8


def opened(value: Any) -> Any:
    """Return ``value`` with the content of objects in place of these; what holds no tensor is left out."""
    return _Opening().plain(value, 0)


def opened_whole(value: Any) -> Any:
    """Return ``value`` as :func:`opened` does, texts in it as their bytes: of what a model gives, these count as well."""
    return _Opening(texts=True).plain(value, 0)


def sealed_in(value: Any) -> List[str]:
    """Name the types of objects in ``value`` whose content cannot be seen, so that nothing of them can be recorded."""
    opening = _Opening()
    opening.plain(value, 0)
    return sorted(opening.sealed)


class _Opening:
    """Open one value.

    Args:
        texts: keep texts, as tensors of their bytes.

    Attributes:
        sealed: names of types that could not be opened.
    """

    def __init__(self, texts: bool = False) -> None:
        self._texts = texts
        self._around: Set[int] = set()
        self.sealed: Set[str] = set()

    def plain(self, value: Any, depth: int) -> Any:
        """Return a value in tensors, arrays, numbers, lists, tuples and dicts; None for what is left out."""
        if isinstance(value, torch.Tensor):
            return _storable(value)
        if isinstance(value, np.ndarray):
            return _of_array(value)
        if isinstance(value, _NUMBERS):
            return value
        if isinstance(value, complex):
            return [value.real, value.imag]
        if isinstance(value, (str, bytes)):
            return _bytes(value) if self._texts else None
        if isinstance(value, _NOTHING) or isinstance(value, nn.Module) or callable(value):
            return None
        if id(value) in self._around or depth > _DEEPEST:
            return None
        self._around.add(id(value))
        try:
            return self._content(value, depth + 1)
        finally:
            self._around.discard(id(value))

    def _content(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return {key: self.plain(item, depth) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(item, depth) for item in value]
        if isinstance(value, (set, frozenset, range)):
            return [self.plain(item, depth) for item in _sorted(value)]
        if callable(getattr(value, "all_items", None)):  # data samples and instances of mmengine
            return {key: self.plain(item, depth) for key, item in value.all_items()}
        if is_dataclass(value):
            return {field.name: self.plain(getattr(value, field.name, None), depth) for field in fields(value)}
        if hasattr(value, "__dict__"):
            return self._attributes(vars(value), depth)
        self.sealed.add("{}.{}".format(type(value).__module__, type(value).__qualname__))
        return None

    def _attributes(self, attributes: Dict[str, Any], depth: int) -> Any:
        """Return what an object holds if there is a tensor in it; else it is a setting, and none of what is computed."""
        found = {name: self.plain(item, depth) for name, item in list(attributes.items())}
        return found if _has_tensor(found) else None


def _storable(tensor: torch.Tensor) -> Any:
    """Return a tensor as a trace keeps it: complex numbers as pairs, a sparse one whole, a nested one as a list."""
    if getattr(tensor, "is_nested", False):
        return list(tensor.unbind())
    if tensor.layout != torch.strided:
        return tensor.to_dense()
    if tensor.is_complex():
        return torch.view_as_real(tensor.resolve_conj() if hasattr(tensor, "resolve_conj") else tensor)
    return tensor


def _of_array(array: np.ndarray) -> Any:
    """Return an array as a tensor, whole numbers without a sign that torch lacks as larger ones; None for one of objects."""
    if array.dtype.kind not in "biuf" or array.dtype.name == "float128":
        return None
    wide = array.astype(np.int64) if array.dtype.kind == "u" and array.dtype.itemsize > 1 else array
    return torch.from_numpy(np.array(wide, order="C"))  # a copy: of one row a stride may be negative


def _has_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_tensor, value.values()))
    if isinstance(value, list):
        return any(map(_has_tensor, value))
    return isinstance(value, torch.Tensor)


def _sorted(value: Any) -> List[Any]:
    try:
        return sorted(value)
    except TypeError:
        return []


def _bytes(text: Any) -> torch.Tensor:
    raw = text.encode() if isinstance(text, str) else text
    return torch.tensor(list(raw), dtype=torch.uint8)
