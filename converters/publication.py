"""Files that appear under their final names together and whole, or not at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from converters.errors import OutputExistsError

_NEW, _OLD = "ddq-convert.tmp", "ddq-convert.old"


class Publication:
    """Temporary files beside the final names that they get in `commit`, all of them or none.

    A temporary file is called `.NAME.PID-N.ddq-convert.tmp` and is locked while it is written: one without a lock was
    left behind by a process that was killed, and the next publication under that name removes it.
    """

    def __init__(self, main: Path, force: bool) -> None:
        """Publish `main`, whose name appears last, and whatever else is opened; `force` replaces existing files."""
        self._main, self._force = main, force
        self._files: dict[Path, IO[bytes]] = {}
        self._saved: dict[Path, Path] = {}

    def __enter__(self) -> Publication:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for file in self._files.values():
            # before it is closed, which would let the lock go; after a commit it has another name
            Path(file.name).unlink(missing_ok=True)
            with suppress(OSError):
                file.close()

    def open(self, path: Path) -> IO[bytes]:
        """Open a temporary file that will be `path`, for writing and reading.

        Raises:
            OSError: If it cannot be made.
        """
        with naming(path):
            _remove_leftovers(path)
            file = _temporary(path)
            self._files[path] = file
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    def commit(self, obsolete: Iterable[Path] = ()) -> None:
        """Bring everything to the disk, then give every file its name; after an error the old files are there again.

        Args:
            obsolete: Files that the new ones replace though they have other names; removed at the end.

        Raises:
            OutputExistsError: If one of the names was taken meanwhile.
            OSError: If the system refuses.
        """
        for path, file in self._files.items():
            with naming(path):
                file.flush()
                os.fsync(file.fileno())
        if not self._force:
            refuse_existing(self._files)
        published: list[Path] = []
        try:
            with naming(self._main):
                for path in self._files:
                    self._save(path)
                for path in sorted(self._files, key=lambda path: path == self._main):
                    os.replace(self._files[path].name, path)
                    published.append(path)
        except BaseException:
            self._undo(published)
            raise
        for path in (*self._saved.values(), *obsolete):
            path.unlink(missing_ok=True)
        _sync_folder(self._main.parent)

    def _save(self, path: Path) -> None:
        """Give a file that is about to be replaced a second name."""
        saved = path.with_name(f".{path.name}.{os.getpid()}.{_OLD}")
        if path.exists():
            saved.unlink(missing_ok=True)
            try:
                os.link(path, saved)
            except OSError:  # a file system without links
                os.rename(path, saved)
            self._saved[path] = saved

    def _undo(self, published: Iterable[Path]) -> None:
        for path in published:
            path.unlink(missing_ok=True)
        for path, saved in self._saved.items():
            os.rename(saved, path)
            saved.unlink(missing_ok=True)  # a rename from one name of a file to another one of it does nothing


def refuse_existing(paths: Iterable[Path]) -> None:
    """Refuse to replace a file.

    Raises:
        OutputExistsError: If there is a file of one of these names.
    """
    for path in paths:
        if os.path.lexists(path):
            raise OutputExistsError(f"The output `{path}` exists already; pass --force to replace it.")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system name the file that the user asked for."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _temporary(path: Path) -> IO[bytes]:
    number = 0
    while True:
        try:
            # 'x' and not tempfile: the file gets the permissions that the user's umask asks for
            return path.with_name(f".{path.name}.{os.getpid()}-{number}.{_NEW}").open("x+b")
        except FileExistsError:  # of a process with the same number on another machine, or without locks
            number += 1


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left of earlier attempts to write `path`."""
    for name in os.listdir(path.parent):
        if not name.startswith(f".{path.name}."):
            continue
        leftover = path.with_name(name)
        if name.endswith(f".{_OLD}") and path.exists() or name.endswith(f".{_NEW}") and _abandoned(leftover):
            leftover.unlink(missing_ok=True)


def _abandoned(temporary: Path) -> bool:
    """Tell whether no process holds the lock of a temporary file."""
    try:
        with temporary.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself last through a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
