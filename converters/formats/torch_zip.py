"""Read the zip files that `torch.save` has written since 1.6, without torch."""

from __future__ import annotations

from typing import Any

from converters.errors import MalformedError
from converters.formats import zip_directory
from converters.formats.inert_pickle import Unpickled, unpickle
from converters.formats.stored import ITEM_SIZES, SourceFile, Storage


def read(source: SourceFile) -> Unpickled:
    """Return what the file holds, tensors still in it.

    Raises:
        MalformedError: If it is no intact torch file.
        OSError: If it cannot be read.
    """
    records = zip_directory.read(source)
    root = _root(records)
    if any(record.compressed for record in records.values()):
        raise MalformedError("its records are compressed, which torch never does")
    order = records.get(f"{root}byteorder")
    if order is not None and zip_directory.content(source, order) != b"little":
        raise MalformedError("it was written on a big-endian machine, which is not supported")
    storages: dict[str, Storage] = {}

    def storage(dtype: str, key: str, numel: int, more: tuple[Any, ...]) -> Storage:
        name = f"{root}data/{key}"
        needed = numel * ITEM_SIZES[dtype]
        record = records.get(name)
        if record is None or record.nbytes != needed:
            held = "there is no such record" if record is None else f"its record holds {record.nbytes}"
            raise MalformedError(f"storage {key} declares {needed} bytes, {held}")
        if key not in storages:
            storages[key] = Storage(name, needed, source, record.begin, record.crc32)
        return storages[key]

    data = zip_directory.content(source, records[f"{root}data.pkl"])
    return unpickle(data, storage, source.size)


def _root(records: dict[str, zip_directory.Record]) -> str:
    """Return the folder in the zip file that all is in."""
    roots = [name.removesuffix("data.pkl") for name in records if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise MalformedError(f"it holds {len(roots)} records named data.pkl, expected one")
    if f"{roots[0]}constants.pkl" in records:
        raise MalformedError(
            "it is a TorchScript archive; open it with torch.jit.load and save its state_dict() with torch.save"
        )
    return roots[0]
