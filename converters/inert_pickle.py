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
from dataclasses import dataclass
from typing import Any

from converters.errors import CheckpointError

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


@dataclass(frozen=True)
class StorageRef:
    """A storage that the file holds: its record's key and how many elements it declares."""

    key: str
    dtype: str
    numel: int


class TensorRef:
    """A tensor as the pickle describes it, not yet read: `size` and `stride` count elements of `storage`."""

    def __init__(self, storage: StorageRef, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        numbers = (offset, *size, *stride)
        if not isinstance(storage, StorageRef) or len(size) != len(stride) or not _naturals(numbers):
            raise ValueError("a tensor is described by something else than a storage and whole numbers")
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)

    def __setstate__(self, state: object) -> None:
        """Swallow attributes that somebody hung on the tensor."""


class Foreign:
    """Stand-in for a global that is not allowed; `foreign_name` says which."""

    foreign_name = ""

    def __new__(cls, *args: object, **kwargs: object) -> Foreign:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Swallow the arguments."""

    def __call__(self, *args: object, **kwargs: object) -> Foreign:
        return self

    def __setstate__(self, state: object) -> None:
        """Swallow the state."""

    def __setitem__(self, key: object, value: object) -> None:
        """Swallow an item, as dict subclasses are given them."""

    def append(self, value: object) -> None:
        """Swallow an item, as list subclasses are given them."""

    def extend(self, values: object) -> None:
        """Swallow items, as list subclasses are given them."""

    def add(self, value: object) -> None:
        """Swallow an item, as set subclasses are given them."""


@dataclass(frozen=True)
class Unpickled:
    """What a pickle held, and the sorted names of the globals that were made inert."""

    content: Any
    foreign: tuple[str, ...]


def unpickle(data: bytes) -> Unpickled:
    """Read a pickle with stand-ins for everything that could act.

    Raises:
        CheckpointError: If the pickle is malformed, or would take more memory than its size allows.
    """
    _check_opcodes(data)
    unpickler = _InertUnpickler(io.BytesIO(data))
    try:
        content = unpickler.load()
    except _MALFORMED as error:
        raise CheckpointError(f"its pickle is malformed ({type(error).__name__}: {error})") from error
    return Unpickled(content, tuple(sorted(unpickler.foreign)))


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.foreign: dict[str, type[Foreign]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module in ("torch", "torch.storage") and name in _STORAGE_DTYPES:
            return StorageType(_STORAGE_DTYPES[name])
        full = f"{module}.{name}"
        if full not in self.foreign:
            self.foreign[full] = type("Foreign", (Foreign,), {"foreign_name": full})
        return self.foreign[full]

    def persistent_load(self, pid: Any) -> StorageRef:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], StorageType):
            raise pickle.UnpicklingError("a persistent id is not that of a known storage")
        _, kind, key, _, numel = pid
        if not isinstance(key, str) or not _naturals((numel,)):
            raise pickle.UnpicklingError("a storage is not described by a key and a whole number")
        return StorageRef(key, kind.dtype, numel)


def _rebuild_tensor(
    storage: StorageRef, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *ignored: object
) -> TensorRef:
    return TensorRef(storage, offset, size, stride)


def _rebuild_parameter(data: TensorRef, *ignored: object) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise ValueError("a parameter is made of something else than a tensor")
    return data


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def _naturals(numbers: tuple[object, ...]) -> bool:
    return all(type(number) is int and 0 <= number < 2**62 for number in numbers)


def _check_opcodes(data: bytes) -> None:
    """Refuse opcodes with which a small pickle makes the unpickler allocate a lot."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.proto > _HIGHEST_PROTOCOL:
                raise CheckpointError(f"its pickle uses {opcode.name}, newer than protocol {_HIGHEST_PROTOCOL}")
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument) > len(data):
                raise CheckpointError("its pickle numbers more objects than it can hold")
    except _MALFORMED as error:
        raise CheckpointError(f"its pickle is malformed ({type(error).__name__}: {error})") from error
