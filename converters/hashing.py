"""SHA-256 of files and tensors, on all processors: hashing and reading let other threads run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from converters.manifest import FileDigest
from converters.stored import StoredTensor

Key = TypeVar("Key")


def digests(files: Iterable[Path], tensors: Mapping[Key, StoredTensor]) -> tuple[list[FileDigest], dict[Key, str]]:
    """Hash files, and the bytes of tensors, at the same time.

    Raises:
        CheckpointError: If a tensor's file is damaged.
        OSError: If a file cannot be read.
    """
    files = list(files)
    largest_first = sorted(tensors, key=lambda key: -tensors[key].nbytes)
    works: list[Callable[[], object]] = [
        *(_file_work(path) for path in files),
        *(tensors[k].sha256 for k in largest_first),
    ]
    done = _in_threads(works)
    return done[: len(files)], dict(zip(largest_first, done[len(files) :]))


def file_digest(path: Path) -> FileDigest:
    """Hash a file.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileDigest(path.name, file.tell(), digest.hexdigest())


def _file_work(path: Path) -> Callable[[], FileDigest]:
    return lambda: file_digest(path)


def _in_threads(works: list[Callable[[], object]]) -> list:
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        return list(pool.map(lambda work: work(), works))
    finally:
        pool.shutdown(cancel_futures=True)
