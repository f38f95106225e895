"""Inputs for a second run: random numbers in place of those that leave weights without effect, such as zeros."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def are_alike(inputs: tuple[Any, Any]) -> bool:
    """Tell whether both are called with arrays of the same numbers."""
    import numpy as np

    one, other = (list(_arrays(side)) for side in inputs)
    return len(one) == len(other) and all(np.array_equal(first, second) for first, second in zip(one, other))


def drawn(inputs: tuple[Any, Any]) -> tuple[Any, Any] | None:
    """Return inputs of A and of B with the same random numbers in place of floating ones.

    None where they have no floating numbers, or the two are not called with the same ones.
    """
    import numpy as np

    if not are_alike(inputs) or not any(array.dtype.kind == "f" for array in _arrays(inputs[0])):
        return None
    return tuple(_filled(side, np.random.default_rng(0)) for side in inputs)


def _arrays(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _arrays(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _arrays(item)
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        yield value


def _filled(value: Any, generator: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, generator) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_filled(item, generator) for item in value)
    if not hasattr(value, "dtype") or value.dtype.kind != "f":
        return value
    spread = float(value.std()) or 1.0 if value.size else 1.0
    middle = float(value.mean()) if value.size else 0.0
    return (middle + spread * generator.standard_normal(value.shape)).astype(value.dtype)
