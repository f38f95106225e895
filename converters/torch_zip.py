"""Read the zip files that `torch.save` writes, record by record, never more than the file holds."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import CheckpointError
from converters.inert_pickle import StorageRef, TensorRef, unpickle

if TYPE_CHECKING:
    from torch import Tensor

# Whatever zipfile raises on a damaged file; OSError because a damaged directory makes it seek to impossible places.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    KeyError,
    ValueError,
    OverflowError,
)


class TorchZip:
    """An open `.pth` file: the inert content of its pickle, and its storages on demand."""

    def __init__(self, path: Path) -> None:
        """Open the file and check that its records fit into it.

        Raises:
            CheckpointError: If it is no intact torch zip file.
        """
        self._storages: dict[str, Tensor] = {}
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise CheckpointError(
                f"its zip directory cannot be read ({error}); the file is truncated or damaged"
            ) from error
        try:
            self._records = {info.filename: info for info in self._zip.infolist()}
            self._root = self._find_root()
            self._check_records(path.stat().st_size)
        except CheckpointError:
            self._zip.close()
            raise

    def __enter__(self) -> TorchZip:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._zip.close()

    def unpickle(self) -> tuple[Any, tuple[str, ...]]:
        """Return the pickle's content, tensors as `TensorRef`, and the names of the globals made inert."""
        found = unpickle(self._read(f"{self._root}data.pkl"))
        return found.content, found.foreign

    def tensor(self, ref: TensorRef) -> Tensor:
        """Read the tensor that `ref` describes; tensors of one storage share it, as they did when saved.

        Raises:
            CheckpointError: If it reaches beyond its storage, or the storage beyond its record.
        """
        import torch

        span = 0 if 0 in ref.size else 1 + sum((n - 1) * step for n, step in zip(ref.size, ref.stride))
        if ref.offset + span > ref.storage.numel or math.prod(ref.size) > ref.storage.numel:
            raise CheckpointError(
                f"a tensor of {list(ref.size)} reaches beyond its storage of {ref.storage.numel} elements"
            )
        flat = self._storage(ref.storage).view(getattr(torch, ref.storage.dtype))
        return torch.as_strided(flat, ref.size, ref.stride, ref.offset)

    def _storage(self, ref: StorageRef) -> Tensor:
        """Return the bytes of a storage as a uint8 tensor, read once."""
        import torch

        name = f"{self._root}data/{ref.key}"
        needed = ref.numel * getattr(torch, ref.dtype).itemsize
        held = self._records[name].file_size if name in self._records else None
        if held != needed:
            raise CheckpointError(f"storage {ref.key} declares {needed} bytes, its record holds {held}")
        if name not in self._storages:
            buffer = torch.empty(needed, dtype=torch.uint8)
            if needed:
                self._read_into(name, memoryview(buffer.numpy()))
            self._storages[name] = buffer
        return self._storages[name]

    def _find_root(self) -> str:
        roots = [name.removesuffix("data.pkl") for name in self._records if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise CheckpointError(f"it holds {len(roots)} records named data.pkl, expected one")
        order = f"{roots[0]}byteorder"
        if order in self._records and self._read(order, 16) != b"little":
            raise CheckpointError("it was written on a big-endian machine, which is not supported")
        return roots[0]

    def _check_records(self, file_size: int) -> None:
        """Refuse compressed records, and overlapping ones: both can be larger than the file."""
        if any(info.compress_type != zipfile.ZIP_STORED for info in self._records.values()):
            raise CheckpointError("its records are compressed, which torch never does")
        declared = sum(info.file_size for info in self._records.values())
        if declared > file_size:
            raise CheckpointError(f"its records declare {declared} bytes, the file has {file_size}")

    def _read(self, name: str, limit: int = -1) -> bytes:
        try:
            with self._zip.open(name) as record:
                return record.read(limit)
        except _BROKEN as error:
            raise CheckpointError(f"record {name} cannot be read ({error})") from error

    def _read_into(self, name: str, view: memoryview) -> None:
        try:
            with self._zip.open(name) as record:
                done = 0
                while done < len(view):
                    count = record.readinto(view[done:])
                    if not count:
                        raise EOFError(f"ends after {done} of {len(view)} bytes")
                    done += count  # with the last byte, zipfile checks the sum of the record
        except _BROKEN as error:
            raise CheckpointError(f"record {name} cannot be read ({error})") from error
