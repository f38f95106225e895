"""Read the files that `torch.save` wrote before 1.6, and still writes if asked to, without torch.

Five pickles, one after the other: a magic number, the version, facts about the machine, the content, the storages'
keys; then for each key, in that order, how many elements it has (8 bytes), and they themselves. No check sums.
"""

from __future__ import annotations

import mmap
from typing import Any

from converters.errors import MalformedError
from converters.formats.inert_pickle import Unpickled, unpickle
from converters.formats.stored import ITEM_SIZES, SourceFile, Storage

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


def read(source: SourceFile) -> Unpickled:
    """Return what the file holds, tensors still in it.

    Raises:
        MalformedError: If it is no intact torch file.
        OSError: If it cannot be read.
    """
    with mmap.mmap(source.handle, source.size, access=mmap.ACCESS_READ) as data:
        return _read(source, data)


def _read(source: SourceFile, data: mmap.mmap) -> Unpickled:
    magic = _plain(source, data, 0)
    if magic.content != _MAGIC:
        raise MalformedError(
            "it is a pickle, but not one that torch.save wrote; load it with what wrote it and save it with torch.save"
        )
    version = _plain(source, data, magic.end)
    machine = _plain(source, data, version.end)
    if version.content != _VERSION or not isinstance(machine.content, dict):
        raise MalformedError("its header is damaged, or of an unknown version of the format")
    if machine.content.get("little_endian") is not True:
        raise MalformedError("it was written on a big-endian machine, which is not supported")
    storages = _Storages(source)
    found = unpickle(data, storages.find, source.size, machine.end)
    keys = _plain(source, data, found.end)
    storages.place(keys.content, keys.end)
    return found


def _plain(source: SourceFile, data: mmap.mmap, begin: int) -> Unpickled:
    """Read a pickle without tensors."""
    return unpickle(data, _Storages(source).find, source.size, begin)


class _Storages:
    """The storages that the pickle names; where they lie in the file is known only after it."""

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._whole: dict[str, tuple[Storage, int]] = {}
        self._parts: dict[str, tuple[Storage, str, int]] = {}

    def find(self, dtype: str, key: str, numel: int, more: tuple[Any, ...]) -> Storage:
        """Return the storage, or the part of it that `more`, the view's key, offset and length, describes."""
        itemsize = ITEM_SIZES[dtype]
        nbytes = numel * itemsize
        if nbytes > self._source.size:
            raise MalformedError(f"storage {key} declares {nbytes} bytes, the file has {self._source.size}")
        whole, _ = self._whole.setdefault(key, (Storage(key, nbytes, self._source, None, None), itemsize))
        if whole.nbytes != nbytes:
            raise MalformedError(f"storage {key} declares {nbytes} bytes, and {whole.nbytes} at another place")
        if not more or more[0] is None:
            return whole
        return self._part(whole, key, itemsize, more[0])

    def _part(self, whole: Storage, key: str, itemsize: int, view: Any) -> Storage:
        if type(view) is not tuple or len(view) != 3 or type(view[0]) is not str:
            raise MalformedError(f"a view of storage {key} is described by something else than key, offset and length")
        name, offset, numel = view
        if type(offset) is not int or type(numel) is not int or offset < 0 or numel < 0:
            raise MalformedError(f"a view of storage {key} is described by something else than whole numbers")
        if (offset + numel) * itemsize > whole.nbytes:
            raise MalformedError(f"a view of storage {key} reaches beyond its {whole.nbytes} bytes")
        part = Storage(name, numel * itemsize, self._source, None, None)
        part, *place = self._parts.setdefault(name, (part, key, offset * itemsize))
        if place != [key, offset * itemsize] or part.nbytes != numel * itemsize:
            raise MalformedError(f"the view {name} of storage {key} is described in two ways")
        return part

    def place(self, keys: Any, begin: int) -> None:
        """Find the storages in the rest of the file, which has them in the order of `keys`."""
        if type(keys) is not list or sorted(map(str, keys)) != sorted(self._whole):
            raise MalformedError("the list of its storages does not agree with its content")
        begins: dict[str, int] = {}
        for key in keys:
            storage, itemsize = self._whole[key]
            if begin + 8 + storage.nbytes > self._source.size:
                raise MalformedError(
                    f"storage {key} ends at byte {begin + 8 + storage.nbytes}, the file at {self._source.size}; the "
                    "file is truncated or damaged"
                )
            held = int.from_bytes(self._source.read(begin, 8), "little") * itemsize
            if held != storage.nbytes:
                raise MalformedError(f"storage {key} declares {storage.nbytes} bytes, the file has {held} of it")
            begins[key] = begin + 8
            storage.place(begin + 8)
            begin += 8 + storage.nbytes
        for part, key, offset in self._parts.values():
            part.place(begins[key] + offset)
