"""Tensors as a file holds them: dtype, shape and place, read when asked, and without torch.

Files are read at positions and not mapped into memory: a mapped file that somebody cuts kills its reader with a signal
instead of an error, and its pages count as memory of the process.
"""

from __future__ import annotations

import math
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import CheckpointError, MalformedError
from converters.threads import in_order

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1 << 20  # bytes; small enough for the processor's cache, large enough that a call costs nothing
ITEM_SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "complex128": 16,
    "complex64": 8,
    "complex32": 4,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}
_FORMATS = {
    "float64": "d",
    "float32": "f",
    "float16": "e",
    "int64": "q",
    "int32": "i",
    "int16": "h",
    "int8": "b",
    "uint64": "Q",
    "uint32": "I",
    "uint16": "H",
    "uint8": "B",
    "bool": "?",
}
_COMPLEX = {"complex128": "d", "complex64": "f", "complex32": "e"}
_MOST_DIMENSIONS = 32  # what numpy has had at all times


class SourceFile:
    """A file that stays open, at the same content even if its name is given to another file meanwhile.

    Attributes:
        path: Its name when it was opened.
        size: Its length in bytes then.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: If it cannot be opened.
        """
        self.path = path
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, handle)
        self.handle = handle
        self.size = os.fstat(handle).st_size

    def read(self, begin: int, length: int) -> bytes:
        """Read `length` bytes from `begin` on; threads may do so at once.

        Raises:
            CheckpointError: If the file ends before.
            OSError: If it cannot be read.
        """
        data = os.pread(self.handle, length, begin)
        while len(data) < length:
            more = os.pread(self.handle, length - len(data), begin + len(data))
            if not more:
                raise self.fault(f"it ends at byte {begin + len(data)}, expected {begin + length} or more")
            data += more
        return data

    def fault(self, what: object) -> CheckpointError:
        """Return the error that says what is wrong with this file."""
        return CheckpointError(f"Cannot read the checkpoint `{self.path}`: {what}.")


class Storage:
    """A run of bytes that tensors lie in: part of a file, or held in memory.

    Attributes:
        name: What the file calls it.
        nbytes: Its length.
    """

    __slots__ = ("name", "nbytes", "_source", "_begin", "_crc32", "_lock")

    def __init__(
        self, name: str, nbytes: int, source: SourceFile | bytes, begin: int | None, crc32: int | None
    ) -> None:
        """Describe the part of `source` from `begin` on; without `crc32` there is nothing to verify it by."""
        self.name, self.nbytes = name, nbytes
        self._source, self._begin, self._crc32 = source, begin, crc32
        self._lock = threading.Lock()

    @classmethod
    def of(cls, data: bytes) -> Storage:
        """Hold bytes in memory."""
        return cls("memory", len(data), data, 0, None)

    def place(self, begin: int) -> None:
        """Say where the storage begins in its file, for formats that tell so after they have described it."""
        self._begin = begin

    def check(self) -> None:
        """Verify the check sum that the file keeps of this storage, once.

        Raises:
            CheckpointError: If the bytes are not those that were written.
            OSError: If they cannot be read.
        """
        with self._lock:
            if self._crc32 is not None:
                for _ in self.chunks(0, self.nbytes):
                    pass

    def read(self, begin: int, length: int) -> bytes:
        """Return `length` bytes from `begin` on, verified.

        Raises:
            CheckpointError, OSError: As `check` does.
        """
        whole = begin == 0 and length == self.nbytes
        if not whole:
            self.check()
        data = self._read(begin, length)
        if whole and self._crc32 is not None:
            self._verify(zlib.crc32(data))
        return data

    def chunks(self, begin: int, length: int, size: int = CHUNK) -> Iterator[bytes]:
        """Yield the same piece by piece; if that is the whole storage, it is verified on the way, at the end.

        Raises:
            CheckpointError, OSError: As `check` does.
        """
        whole = begin == 0 and length == self.nbytes
        if not whole:
            self.check()
        summed, verify = 0, whole and self._crc32 is not None
        for at in range(begin, begin + length, size):
            data = self._read(at, min(size, begin + length - at))
            summed = zlib.crc32(data, summed) if verify else 0
            yield data
        if verify:
            self._verify(summed)

    def _read(self, begin: int, length: int) -> bytes:
        if isinstance(self._source, bytes):
            return self._source[begin : begin + length]
        return self._source.read(self._begin + begin, length)

    def _verify(self, found: int) -> None:
        if self._crc32 is not None and found != self._crc32:
            raise self._source.fault(damaged(self.name, found, self._crc32))
        self._crc32 = None


def check_all(storages: Iterable[Storage]) -> None:
    """Verify check sums, two storages at a time.

    Raises:
        CheckpointError, OSError: As `Storage.check` does, for the first of those that are damaged.
    """
    for _ in in_order((storage.check for storage in storages), most=2):
        pass


class StoredTensor:
    """A tensor in a storage; `offset` and `stride` count elements, as torch does.

    Attributes:
        dtype: Its name in torch, without `torch.`; one of `ITEM_SIZES`.
        shape, stride: One natural number per dimension.
        offset: Of the first element in the storage.
        storage: Where it lies; tensors that share memory have the same one.
    """

    __slots__ = ("dtype", "shape", "stride", "offset", "storage")

    def __init__(
        self,
        dtype: str,
        shape: tuple[int, ...],
        storage: Storage,
        offset: int = 0,
        stride: tuple[int, ...] | None = None,
        most_bytes: int | None = None,
    ) -> None:
        """Describe a tensor, row-major unless `stride` says otherwise.

        Raises:
            MalformedError: If that is no tensor, reaches beyond its storage, or takes more than `most_bytes`, which is
                possible where it repeats elements.
        """
        if dtype not in ITEM_SIZES:
            raise MalformedError(f"a tensor has the unknown dtype {dtype}")
        _check_numbers((offset,), shape)
        stride = row_major(shape) if stride is None else stride
        if len(shape) != len(stride):
            raise MalformedError(f"a tensor of {len(shape)} dimensions has {len(stride)} strides")
        _check_numbers(stride)
        self.dtype, self.shape, self.stride, self.offset, self.storage = dtype, shape, stride, offset, storage
        held = storage.nbytes // ITEM_SIZES[dtype]
        if offset + self._span() > held:
            raise MalformedError(f"a tensor of {list(shape)} reaches beyond its storage of {held} elements")
        if most_bytes is not None and self.nbytes > max(most_bytes, storage.nbytes):
            raise MalformedError(f"a tensor of {list(shape)} repeats its elements up to more bytes than the file has")

    @classmethod
    def of(cls, dtype: str, shape: tuple[int, ...], data: bytes) -> StoredTensor:
        """Make a tensor of row-major bytes in memory."""
        return cls(dtype, shape, Storage.of(data))

    @classmethod
    def from_torch(cls, tensor: Tensor) -> StoredTensor:
        """Copy a tensor of torch."""
        import torch

        flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        flat = flat.as_strided(flat.shape, (1,))  # one element counts as contiguous whatever its stride
        dtype = str(tensor.dtype).removeprefix("torch.")
        return cls.of(dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes())

    def __repr__(self) -> str:
        return f"StoredTensor({self.dtype}, {list(self.shape)}, {self.storage.name})"

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return ITEM_SIZES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.numel() * self.itemsize

    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    def is_contiguous(self) -> bool:
        """Tell whether the elements lie in the storage one after the other, the last dimension fastest."""
        plain = row_major(self.shape)
        return self.numel() == 0 or all(
            size == 1 or step == wanted for size, step, wanted in zip(self.shape, self.stride, plain)
        )

    def data(self) -> bytes:
        """Return the elements, row-major and little-endian.

        Raises:
            CheckpointError: If the file is damaged or was cut meanwhile.
            OSError: If it cannot be read.
        """
        if self.is_contiguous():
            return self.storage.read(self.offset * self.itemsize, self.nbytes)
        return self._gathered()

    def chunks(self, size: int = CHUNK) -> Iterator[bytes | memoryview]:
        """Yield the same piece by piece, `size` bytes each but for the last; damage may be told after the last piece.

        Raises:
            CheckpointError, OSError: As `data` does.
        """
        if self.is_contiguous():
            yield from self.storage.chunks(self.offset * self.itemsize, self.nbytes, size)
        else:
            data = memoryview(self._gathered())
            yield from (data[at : at + size] for at in range(0, len(data), size))

    def sha256(self) -> str:
        """Return the SHA-256 of the elements' bytes, in hexadecimal.

        Raises:
            CheckpointError, OSError: As `data` does.
        """
        import hashlib

        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def to_torch(self) -> Tensor:
        """Copy the elements into a tensor of torch, row-major.

        Raises:
            CheckpointError: As `data` does, and if this torch lacks the dtype.
            OSError: If the file cannot be read.
        """
        import torch

        dtype = getattr(torch, self.dtype, None)
        if dtype is None:
            raise CheckpointError(
                f"The installed torch {torch.__version__} has no dtype {self.dtype}; use a newer one."
            )
        flat = torch.empty(self.nbytes, dtype=torch.uint8)
        view, done = memoryview(flat.numpy()), 0
        for chunk in self.chunks():
            view[done : done + len(chunk)] = chunk
            done += len(chunk)
        return flat.view(dtype).reshape(self.shape)

    def tolist(self) -> Any:
        """Return the elements as Python numbers in nested lists, one number if there are no dimensions.

        Raises:
            CheckpointError: As `data` does, and for dtypes of 8-bit floats.
            OSError: If the file cannot be read.
        """
        data, code = self.data(), _FORMATS.get(self.dtype, _COMPLEX.get(self.dtype))
        if self.dtype == "bfloat16":  # the upper half of a float32
            wide = bytearray(2 * len(data))
            wide[2::4], wide[3::4] = data[::2], data[1::2]
            data, code = bytes(wide), "f"
        if code is None:
            raise CheckpointError(f"Numbers of dtype {self.dtype} are not read out.")
        numbers: list[Any] = list(struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data))
        if self.dtype in _COMPLEX:
            numbers = [complex(real, imaginary) for real, imaginary in zip(numbers[::2], numbers[1::2])]
        for axis, size in reversed(tuple(enumerate(self.shape if numbers else ()))):
            outer = math.prod(self.shape[:axis])
            numbers = [numbers[at * size : (at + 1) * size] for at in range(outer)]
        return numbers[0] if numbers else []

    def _span(self) -> int:
        """Return how many elements of the storage lie from the first to the last one used."""
        return 0 if 0 in self.shape else 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride))

    def _gathered(self) -> bytes:
        """Copy the elements of a tensor that is not row-major."""
        import numpy as np

        span = self.storage.read(self.offset * self.itemsize, self._span() * self.itemsize)
        steps = tuple(step * self.itemsize for step in self.stride)
        return np.ndarray(self.shape, f"V{self.itemsize}", span, strides=steps).tobytes()


def damaged(name: str, found: int, expected: int) -> str:
    """Say that a record's check sum is wrong."""
    return f"record {name} is damaged (CRC-32 {found:08x}, expected {expected:08x}); copy or download the file again"


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a row-major tensor, in elements."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _check_numbers(*groups: tuple[object, ...]) -> None:
    for numbers in groups:
        if len(numbers) > _MOST_DIMENSIONS:
            raise MalformedError(f"a tensor has {len(numbers)} dimensions, expected at most {_MOST_DIMENSIONS}")
        if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
            raise MalformedError("a tensor is described by something else than a storage and whole numbers")
