"""Write checkpoints: same input, same bytes; tensors are copied piece by piece."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, TYPE_CHECKING, Any

from converters.errors import CheckpointError
from converters.formats import shards
from converters.formats.stored import StoredTensor
from converters.writing import manifest, publication
from converters.writing.hashing import file_digest, header_digest
from converters.writing.manifest import FileDigest, SideManifest, meta_text
from converters.writing.publication import Publication, naming

if TYPE_CHECKING:
    from torch import Tensor

_SAFETENSORS_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
SUFFIXES = (".pth", ".safetensors")
_SYNCED = 1 << 25  # bytes after which a file is brought to the disk, so that this does not wait for its end


def check_destination(path: Path, force: bool) -> list[Path]:
    """Refuse a destination before any work is done for it.

    Returns:
        The files that may be replaced: with `force` all that belong to the destination; without it those that a
        conversion has left that was killed while it gave its files their names.

    Raises:
        CheckpointError: If the suffix or the folder is wrong.
        OutputExistsError: If the file, or one that belongs to it, is there already and `force` is not set.
        OSError: If the folder cannot be read.
    """
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"The output `{path}` has suffix `{path.suffix}`, expected {' or '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise CheckpointError(f"The folder of the output `{path}` does not exist; create it first.")
    there = [path.with_name(name) for name in sorted(os.listdir(path.parent)) if is_output(path, name)]
    for folder in (output for output in there if output.is_dir()):
        raise CheckpointError(f"The output `{folder}` is a folder, expected a file name.")
    finals = {path.name, shards.index_path(path).name}
    left = publication.leftovers(path.parent, lambda name: name in finals)
    if not force and not (left and finals.isdisjoint(found.name for found in there)):
        publication.refuse_existing(there)
    return there


def check_format(
    destination: Path, state_dict: Mapping[str, StoredTensor], parts: Mapping[str, Any], shard_size: int | None
) -> None:
    """Refuse what the destination's format cannot hold.

    Raises:
        CheckpointError: If a `.pth` is to be split, or a `.safetensors` to hold an unusual dtype or more than tensors.
    """
    if destination.suffix == ".pth":
        if shard_size is not None:
            raise CheckpointError(f"The output `{destination}` is a .pth, which --shard-size cannot split.")
        return
    if parts:
        raise CheckpointError(
            f"The output `{destination}` is a .safetensors, which has no place for {', '.join(sorted(parts))}; "
            "write a .pth."
        )
    for key, tensor in sorted(state_dict.items()):
        if tensor.dtype not in _SAFETENSORS_DTYPES:
            raise CheckpointError(
                f"Key `{key}` has dtype {tensor.dtype}, which is not written to .safetensors; use .pth."
            )


def is_output(destination: Path, name: str) -> bool:
    """Tell whether a conversion into `destination` may write a file of this name, in the same folder."""
    if name in (destination.name, side_path(destination).name):
        return True
    index = shards.index_path(destination).name
    return destination.suffix == ".safetensors" and (name == index or shards.is_shard(destination, name))


def side_path(destination: Path) -> Path:
    """Name the manifest beside a destination."""
    return destination.with_name(destination.name + manifest.SIDE_SUFFIX)


def write(
    files: Publication,
    destination: Path,
    state_dict: Mapping[str, StoredTensor],
    meta: Mapping[str, Any],
    parts: Mapping[str, Any],
    shard_size: int | None,
    versions: Mapping[str, int] | None = None,
) -> tuple[FileDigest, ...]:
    """Write a checkpoint into temporary files.

    Args:
        files: Where to open them.
        destination: The file to write; its suffix chooses the format.
        state_dict: The tensors; views and shared storages are written out on their own.
        meta: Plain data; in safetensors, what is not text is kept as JSON.
        parts: What else a `.pth` has at its top level.
        shard_size: Most bytes of tensors in one file.
        versions: Of modules, by name, that a `.pth` tells of as torch does.

    Returns:
        Every file; the last one is that by which readers find the others.

    Raises:
        CheckpointError: As `check_format` says, or if the source is damaged.
        OSError: If a file cannot be read or written.
    """
    check_format(destination, state_dict, parts, shard_size)
    state_dict, meta = dict(sorted(state_dict.items())), dict(sorted(meta.items()))
    if destination.suffix == ".pth":
        content = _to_torch({"meta": meta, "state_dict": state_dict, **dict(sorted(parts.items()))})
        content["state_dict"] = _versioned(content["state_dict"], versions or {})
        with naming(destination):
            file = files.open(destination)
            _save_pth(file, content)
            return (file_digest(destination.name, file),)
    groups = shards.split({key: tensor.nbytes for key, tensor in state_dict.items()}, shard_size or 2**63)
    if len(groups) == 1:
        return (_save_safetensors(files, destination, state_dict, meta),)
    return _save_shards(files, destination, state_dict, meta, groups)


def write_side(files: Publication, destination: Path, side: SideManifest) -> None:
    """Write the manifest beside a destination into a temporary file.

    Raises:
        OSError: If it cannot be written.
    """
    path = side_path(destination)
    with naming(path):
        files.open(path).write(side.to_json().encode())


def _save_shards(
    files: Publication,
    destination: Path,
    state_dict: Mapping[str, StoredTensor],
    meta: Mapping[str, Any],
    groups: list[list[str]],
) -> tuple[FileDigest, ...]:
    place: dict[str, str] = {}
    written = []
    for number, keys in enumerate(groups, 1):
        path = shards.shard_path(destination, number, len(groups))
        place |= dict.fromkeys(keys, path.name)
        tensors = {key: state_dict[key] for key in keys}
        written.append(_save_safetensors(files, path, tensors, {}))
    total = sum(tensor.nbytes for tensor in state_dict.values())
    path = shards.index_path(destination)
    with naming(path):
        file = files.open(path)
        file.write(shards.Index({**meta_text(meta), "total_size": total}, place).to_json().encode())
        return (*written, file_digest(path.name, file))


def _save_safetensors(
    files: Publication, path: Path, tensors: Mapping[str, StoredTensor], meta: Mapping[str, Any]
) -> FileDigest:
    """Write the format itself: the library orders the metadata by a random hash, so its bytes differ between runs."""
    # wide dtypes first keeps every tensor aligned to its item size
    keys = sorted(tensors, key=lambda key: (-tensors[key].itemsize, key))
    header = _safetensors_header(keys, tensors, {**meta, "format": "pt"})
    with naming(path):
        file = files.open(path)
    with _Syncing(path, file) as syncing:
        for piece in chain([header], *(tensors[key].chunks() for key in keys)):
            with naming(path):
                file.write(piece)
            syncing.wrote(len(piece))
    return header_digest(path.name, header, syncing.size)


def _safetensors_header(keys: Iterable[str], tensors: Mapping[str, StoredTensor], meta: Mapping[str, Any]) -> bytes:
    """Return the length and the JSON header: metadata, then for each tensor its dtype, shape and place."""
    header: dict[str, Any] = {"__metadata__": meta_text(meta)}
    end = 0
    for key in keys:
        tensor = tensors[key]
        begin, end = end, end + tensor.nbytes
        header[key] = {
            "dtype": _SAFETENSORS_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data


def _versioned(tensors: dict[str, Any], versions: Mapping[str, int]) -> dict[str, Any]:
    """Return a state dict that tells versions of modules where torch looks for them; as it is if there are none."""
    if not versions:
        return tensors
    ordered = OrderedDict(tensors)
    ordered._metadata = OrderedDict((name, {"version": version}) for name, version in sorted(versions.items()))
    return ordered


class _Syncing:
    """Bring a file to the disk, in another thread, while it is written."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.size = 0
        self._path, self._file = path, file
        self._due: SimpleQueue[bool] = SimpleQueue()
        self._error: OSError | None = None
        self._thread = Thread(target=self._sync, daemon=True)

    def wrote(self, size: int) -> None:
        """Count what was written."""
        before, self.size = self.size, self.size + size
        if before // _SYNCED < self.size // _SYNCED:
            self._due.put(True)

    def __enter__(self) -> _Syncing:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        self._due.put(False)
        self._thread.join()
        if self._error is not None and kind is None:
            with naming(self._path):
                raise self._error

    def _sync(self) -> None:
        while self._due.get():
            try:
                os.fdatasync(self._file.fileno())
            except OSError as error:  # the system tells it once: not again to who syncs later
                self._error = error
                return


def _save_pth(file: IO[bytes], content: Mapping[str, Any]) -> None:
    """Save with torch, through a file object: by path, torch would write the temporary name into the file."""
    import torch

    try:
        torch.save(content, file)
    except RuntimeError as error:
        # a write that fails leaves the archive unclosed; torch then reports that, and not the disk that is full
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _to_torch(tree: Any) -> Tensor | Any:
    if isinstance(tree, StoredTensor):
        return tree.to_torch()
    if type(tree) is dict:
        return {key: _to_torch(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(_to_torch, tree))
    return tree
