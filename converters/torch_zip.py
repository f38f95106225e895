"""Read the zip files that `torch.save` writes, record by record, never more than the file holds."""

from __future__ import annotations

import struct
import zipfile
import zlib

from converters.errors import MalformedError
from converters.inert_pickle import Unpickled, unpickle
from converters.stored import ITEM_SIZES, SourceFile, Storage

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

    def __init__(self, source: SourceFile) -> None:
        """Open the file and check that its records fit into it.

        Raises:
            MalformedError: If it is no intact torch zip file.
        """
        self._storages: dict[str, Storage] = {}
        self._source = source
        try:
            self._zip = zipfile.ZipFile(source.path)
        except _BROKEN as error:
            raise MalformedError(
                f"its zip directory cannot be read ({error}); the file is truncated or damaged"
            ) from error
        try:
            self._records = {info.filename: info for info in self._zip.infolist()}
            self._root = self._find_root()
            self._check_records(source.size)
        except MalformedError:
            self._zip.close()
            raise

    def __enter__(self) -> TorchZip:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._zip.close()

    def unpickle(self) -> Unpickled:
        """Return the pickle's content, tensors still in the file."""
        return unpickle(self._read(f"{self._root}data.pkl"), self._storage, self._source.size)

    def _storage(self, dtype: str, key: str, numel: int) -> Storage:
        name = f"{self._root}data/{key}"
        needed = numel * ITEM_SIZES[dtype]
        held = self._records[name].file_size if name in self._records else None
        if held != needed:
            raise MalformedError(f"storage {key} declares {needed} bytes, its record holds {held}")
        if name not in self._storages:
            info = self._records[name]
            head = self._source.read(info.header_offset, 30)
            begin = (
                info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
            )
            self._storages[name] = Storage(name, needed, self._source, begin, info.CRC)
        return self._storages[name]

    def _find_root(self) -> str:
        roots = [name.removesuffix("data.pkl") for name in self._records if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise MalformedError(f"it holds {len(roots)} records named data.pkl, expected one")
        order = f"{roots[0]}byteorder"
        if order in self._records and self._read(order, 16) != b"little":
            raise MalformedError("it was written on a big-endian machine, which is not supported")
        return roots[0]

    def _check_records(self, file_size: int) -> None:
        """Refuse compressed records, and overlapping ones: both can be larger than the file."""
        if any(info.compress_type != zipfile.ZIP_STORED for info in self._records.values()):
            raise MalformedError("its records are compressed, which torch never does")
        declared = sum(info.file_size for info in self._records.values())
        if declared > file_size:
            raise MalformedError(f"its records declare {declared} bytes, the file has {file_size}")

    def _read(self, name: str, limit: int = -1) -> bytes:
        try:
            with self._zip.open(name) as record:
                return record.read(limit)
        except _BROKEN as error:
            raise MalformedError(f"record {name} cannot be read ({error})") from error
