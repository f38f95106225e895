"""Files that appear under their names whole, or not at all."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import IO, Iterator, Union

Path = Union[str, "os.PathLike[str]"]


@contextmanager
def whole_file(path: Path, replace: bool = True) -> Iterator[IO[bytes]]:
    """Open a file of another name beside ``path``; it gets that name when it is complete and on the disk.

    After an error there is no trace of it. A process that is killed leaves the hidden file `.NAME.PID.tmp`.

    Args:
        path: the name in the end.
        replace: a file of that name.

    Raises:
        FileExistsError: if there is a file of that name, which may not be replaced.
        OSError: if it cannot be written.
    """
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, ".{}.{}.tmp".format(name, os.getpid()))
    try:
        with open(temporary, "w+b") as file:
            yield file
        publish(temporary, path, replace)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def write_whole(path: Path, content: Union[bytes, str], replace: bool = True) -> None:
    """Write a file in one piece, text as UTF-8; see :func:`whole_file`."""
    with whole_file(path, replace) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def publish(temporary: Path, path: Path, replace: bool = True) -> None:
    """Give a complete file its name when it is on the disk, and bring the name there, too.

    Raises:
        FileExistsError: if there is a file of that name, which may not be replaced.
    """
    sync(temporary)
    if replace:
        os.replace(temporary, path)
    else:
        os.link(temporary, path)  # unlike a renaming, this never replaces a file
        os.unlink(temporary)
    sync(os.path.dirname(os.path.abspath(path)))


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk, so that they last through a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_abandoned(path: Path) -> bool:
    """Tell whether no process holds the lock of a file or a folder; False where there is none, or no locks."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def lock(handle: Union[int, IO[bytes]]) -> None:
    """Lock an open file or folder while it is open, where the file system has locks."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
