"""What stands for the things of a pickle: data that does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converters.formats.stored import StoredTensor

_NUMPY_KINDS = {"b1": "bool", "c8": "complex64", "c16": "complex128"} | {
    f"{kind}{size}": f"{name}{8 * size}"
    for kind, name, sizes in (("f", "float", (2, 4, 8)), ("i", "int", (1, 2, 4, 8)), ("u", "uint", (1, 2, 4, 8)))
    for size in sizes
}


@dataclass(eq=False, slots=True)
class Foreign:
    """Stand-in for a global that is not understood, or for what the pickle makes of it; none of it has any effect.

    Attributes:
        name: The global, as `module.name`.
        args: What it was called with; None if it was only named.
        kwargs: What it was called with by name; None if nothing was.
        state: What its state would be set to; None if nothing was.
        items: What would be appended or added to it, as to a list or set.
        pairs: Keys and values that would be set in it, as in a dict.
    """

    name: str
    args: tuple[Any, ...] | None = None
    kwargs: Mapping[str, Any] | None = None
    state: Any = None
    items: list[Any] | tuple[()] = ()
    pairs: list[tuple[Any, Any]] | tuple[()] = ()

    def __repr__(self) -> str:
        return f"Foreign({self.name})"


@dataclass(eq=False, repr=False, slots=True)
class NumpyArray(Foreign):
    """An array of numpy; `values` holds its numbers, None if it is one of objects, text or dates."""

    values: StoredTensor | None = None


@dataclass(eq=False)
class Dtype:
    """A dtype of torch by its name, such as `float32`."""

    name: str


@dataclass(eq=False)
class NumpyDtype:
    """A dtype of numpy by its kind and size, such as `f4`, and the order of its bytes."""

    kind: str
    order: str = "|"

    @property
    def name(self) -> str | None:
        """Return torch's name of this dtype, if its numbers are stored as torch stores them."""
        return None if self.order == ">" else _NUMPY_KINDS.get(self.kind)
