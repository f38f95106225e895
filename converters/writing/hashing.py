"""SHA-256 of files and tensors, on all processors: hashing and reading let other threads run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from converters.formats import finite
from converters.formats.finite import NotFinite
from converters.formats.stored import StoredTensor
from converters.threads import in_order
from converters.writing.manifest import FileDigest

Key = TypeVar("Key")


def digests(
    files: Iterable[Path], tensors: Mapping[Key, StoredTensor], not_finite: dict[Key, NotFinite] | None = None
) -> tuple[list[FileDigest], dict[Key, str]]:
    """Hash whole files, and the bytes of tensors, at the same time.

    Args:
        files: They are read as a whole.
        tensors: They are read once.
        not_finite: Is given, unless None, how many numbers of which tensor are not finite.

    Raises:
        CheckpointError: If a tensor's file is damaged.
        OSError: If a file cannot be read.
    """
    files = list(files)
    largest_first = sorted(tensors, key=lambda key: -tensors[key].nbytes)
    hashes = [tensors[key].sha256 if not_finite is None else partial(_examined, tensors[key]) for key in largest_first]
    done = list(in_order([*(partial(_whole, path) for path in files), *hashes]))
    hashed = dict(zip(largest_first, done[len(files) :]))
    if not_finite is not None:
        not_finite |= {key: counted for key, (_, counted) in hashed.items() if counted is not None}
        hashed = {key: digest for key, (digest, _) in hashed.items()}
    return done[: len(files)], hashed


def not_finite(tensors: Mapping[Key, StoredTensor]) -> dict[Key, NotFinite]:
    """Count the numbers of tensors that are not finite.

    Raises:
        CheckpointError: If a tensor's file is damaged.
        OSError: If a file cannot be read.
    """
    counts = in_order(partial(finite.count, tensor) for tensor in tensors.values())
    return {key: counted for key, counted in zip(tensors, counts) if counted is not None}


def _examined(tensor: StoredTensor) -> tuple[str, NotFinite | None]:
    digest = hashlib.sha256()
    counted = finite.count(tensor, digest.update)
    return digest.hexdigest(), counted


def file_digest(name: str, file: IO[bytes]) -> FileDigest:
    """Hash all of an open file.

    Raises:
        OSError: If it cannot be read.
    """
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256")
    return FileDigest(name, file.tell(), digest.hexdigest())


def header_digest(name: str, header: bytes, size: int) -> FileDigest:
    """Hash the header of a `.safetensors` of `size` bytes."""
    return FileDigest(name, size, hashlib.sha256(header).hexdigest(), "header")


def output_digest(path: Path) -> FileDigest:
    """Hash what the manifest has of a file that was written: of a `.safetensors` the header.

    Raises:
        OSError: If it cannot be read.
    """
    if path.suffix != ".safetensors":
        return _whole(path)
    with path.open("rb") as file:
        length = file.read(8)
        header = length + file.read(int.from_bytes(length, "little"))
        return header_digest(path.name, header, os.fstat(file.fileno()).st_size)


def _whole(path: Path) -> FileDigest:
    with path.open("rb", buffering=0) as file:
        return file_digest(path.name, file)
