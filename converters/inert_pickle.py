"""Unpickle a checkpoint's `data.pkl` without running any of it.

Four names are understood: ordered dicts, the two functions that rebuild tensors, and torch's storage classes. Tensors
become plain descriptions (`TensorRef`); every other global becomes an inert stand-in that remembers its name and
swallows whatever is done to it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from converters.errors import MalformedError
from converters.stored import Storage, StoredTensor

_HIGHEST_PROTOCOL = 4  # torch writes 2; protocol 5 adds opcodes that allocate before they read
_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
# Whatever a malformed pickle can make the unpickler raise; it runs no code but its own and that of this module.
_MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True)
class StorageType:
    """A torch storage class, by the name of its dtype."""

    dtype: str


class Foreign:
    """Stand-in for a global that is not allowed, and for what the pickle makes of it; none of it has any effect.

    Attributes:
        name: The global, as `module.name`.
        args: What it was called with.
        state: What its state would be set to; None if nothing was.
        items: What would be appended or added to it, as to a list or set.
        pairs: What would be set in it, as in a dict.
    """

    name = ""

    def __new__(cls, *args: object, **kwargs: object) -> Foreign:
        made = object.__new__(cls)
        made.args, made.state, made.items, made.pairs = args, None, [], []
        return made

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Keep nothing more."""

    def __call__(self, *args: object, **kwargs: object) -> Foreign:
        return self

    def __setstate__(self, state: object) -> None:
        """Remember the state."""
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Remember an item, as dict subclasses are given them."""
        self.pairs.append((key, value))

    def append(self, value: object) -> None:
        """Remember an item, as list subclasses are given them."""
        self.items.append(value)

    def extend(self, values: Iterable[object]) -> None:
        """Remember items, as list subclasses are given them."""
        self.items.extend(values)

    def add(self, value: object) -> None:
        """Remember an item, as set subclasses are given them."""
        self.items.append(value)


@dataclass(frozen=True)
class Unpickled:
    """What a pickle held, and the sorted names of the globals that were made inert."""

    content: Any
    foreign: tuple[str, ...]


def unpickle(data: bytes, storage: Callable[[str, str, int], Storage], most_bytes: int) -> Unpickled:
    """Read a pickle with stand-ins for everything that could act.

    Args:
        data: The pickle.
        storage: Finds a storage by its dtype, its key and its number of elements.
        most_bytes: Refuse tensors that repeat elements up to more.

    Raises:
        MalformedError: If the pickle is malformed, or would take more memory than its size allows.
    """
    _check_opcodes(data)
    unpickler = _InertUnpickler(io.BytesIO(data), storage, most_bytes)
    try:
        content = unpickler.load()
    except MalformedError:
        raise
    except _MALFORMED as error:
        raise MalformedError(f"its pickle is malformed ({type(error).__name__}: {error})") from error
    return Unpickled(content, tuple(sorted(unpickler.foreign)))


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, storage: Callable[[str, str, int], Storage], most_bytes: int) -> None:
        super().__init__(file)
        self._storage, self._most_bytes = storage, most_bytes
        self.foreign: dict[str, type[Foreign]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module in ("torch", "torch.storage") and name in _STORAGE_DTYPES:
            return StorageType(_STORAGE_DTYPES[name])
        full = f"{module}.{name}"
        if full not in self.foreign:
            self.foreign[full] = type("Foreign", (Foreign,), {"name": full})
        return self.foreign[full]

    def persistent_load(self, pid: Any) -> _Typed:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], StorageType):
            raise pickle.UnpicklingError("a persistent id is not that of a known storage")
        _, kind, key, _, numel = pid
        if not isinstance(key, str) or not _naturals((numel,)):
            raise pickle.UnpicklingError("a storage is not described by a key and a whole number")
        return _Typed(kind.dtype, self._storage(kind.dtype, key, numel))

    def _tensor(
        self, typed: _Typed, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *ignored: object
    ) -> StoredTensor:
        return StoredTensor(typed.dtype, tuple(size), typed.storage, offset, tuple(stride), self._most_bytes)


@dataclass(frozen=True)
class _Typed:
    """A storage and what the pickle says lies in it."""

    dtype: str
    storage: Storage


def _rebuild_parameter(data: StoredTensor, *ignored: object) -> StoredTensor:
    if not isinstance(data, StoredTensor):
        raise ValueError("a parameter is made of something else than a tensor")
    return data


def _naturals(numbers: tuple[object, ...]) -> bool:
    return all(type(number) is int and 0 <= number < 2**62 for number in numbers)


def _check_opcodes(data: bytes) -> None:
    """Refuse opcodes with which a small pickle makes the unpickler allocate a lot."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.proto > _HIGHEST_PROTOCOL:
                raise MalformedError(f"its pickle uses {opcode.name}, newer than protocol {_HIGHEST_PROTOCOL}")
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument) > len(data):
                raise MalformedError("its pickle numbers more objects than it can hold")
    except _MALFORMED as error:
        raise MalformedError(f"its pickle is malformed ({type(error).__name__}: {error})") from error
