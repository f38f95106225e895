"""SHA-256 of files and tensors, on all processors: hashing and reading let other threads run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, TypeVar

from converters.manifest import FileDigest
from converters.stored import StoredTensor

Key = TypeVar("Key")


def digests(files: Iterable[Path], tensors: Mapping[Key, StoredTensor]) -> tuple[list[FileDigest], dict[Key, str]]:
    """Hash whole files, and the bytes of tensors, at the same time.

    Raises:
        CheckpointError: If a tensor's file is damaged.
        OSError: If a file cannot be read.
    """
    files = list(files)
    largest_first = sorted(tensors, key=lambda key: -tensors[key].nbytes)
    done = _in_threads([*(partial(_whole, path) for path in files), *(tensors[key].sha256 for key in largest_first)])
    return done[: len(files)], dict(zip(largest_first, done[len(files) :]))


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


def _in_threads(works: list[Callable[[], object]]) -> list:
    """Call every work, by as many threads as there are processors, in order; the first error ends it."""
    done: dict[int, object] = {}
    errors: list[BaseException] = []
    waiting: SimpleQueue[tuple[int, Callable[[], object]]] = SimpleQueue()
    for item in enumerate(works):
        waiting.put(item)

    def run() -> None:
        with suppress(Empty):
            while not errors:
                number, work = waiting.get_nowait()
                try:
                    done[number] = work()
                except BaseException as error:
                    errors.append(error)

    threads = [Thread(target=run) for _ in range(len(os.sched_getaffinity(0)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as error:  # an interrupt, which comes to the main thread alone
        errors.append(error)
        raise
    if errors:
        raise errors[0]
    return [done[number] for number in range(len(works))]
