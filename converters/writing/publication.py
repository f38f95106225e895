"""Files that appear under their final names together and whole, or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from converters.errors import OutputExistsError
from legacy_adapters.ground import files

_NEW, _OLD = "ddq-convert.tmp", "ddq-convert.old"
_TEMPORARY = re.compile(rf"\.(.+)\.\d+-\d+\.({re.escape(_NEW)}|{re.escape(_OLD)})", re.DOTALL)


class Publication:
    """Temporary files beside the final names that they get in `commit`, all of them or none.

    A temporary file is called `.NAME.PID-N.ddq-convert.tmp` and is locked while it is written: one without a lock was
    left behind by a process that was killed, and the next publication of such a name removes it.
    """

    def __init__(self, folder: Path, belongs: Callable[[str], bool], replaceable: Collection[Path]) -> None:
        """Publish in `folder` files whose names `belongs` knows, and replace those that are `replaceable`."""
        self._folder, self._replaceable = folder, replaceable
        self._files: dict[Path, IO[bytes]] = {}
        self._saved: dict[Path, Path] = {}
        for path, name in leftovers(folder, belongs).items():
            # a saved file is removed only if there is another one under its name
            if path.name.endswith(_NEW) or (folder / name).exists():
                path.unlink(missing_ok=True)

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
            file = self._files[path] = _opened(path, _NEW)
            files.lock(file)
        return file

    def commit(self, last: Path) -> None:
        """Bring everything to the disk, then give every file its name; after an error the old files are there again.

        Replaceable files that were not written anew are removed.

        Args:
            last: The file by which readers find the others; it gets its name when they have theirs.

        Raises:
            OutputExistsError: If one of the names was taken meanwhile.
            OSError: If the system refuses.
        """
        for path, file in self._files.items():
            with naming(path):
                file.flush()
                os.fsync(file.fileno())
        refuse_existing(self._files.keys() - set(self._replaceable))
        published: list[Path] = []
        try:
            with naming(last):
                for path in self._files:
                    self._save(path)
                for path in sorted(self._files, key=lambda path: path == last):
                    self._give_name(path)
                    published.append(path)
        except BaseException:
            self._undo(published)
            raise
        for path in (*self._saved.values(), *(set(self._replaceable) - self._files.keys())):
            path.unlink(missing_ok=True)
        files.sync(self._folder)

    def _give_name(self, path: Path) -> None:
        """Give a temporary file its final name; one that is taken by now is not replaced, unless it may be."""
        temporary = self._files[path].name
        if path not in self._replaceable:
            try:
                os.link(temporary, path)
            except FileExistsError:
                refuse_existing([path])
            except OSError:  # a file system without links
                pass
            else:
                os.unlink(temporary)
                return
        os.replace(temporary, path)

    def _save(self, path: Path) -> None:
        """Give a file that is about to be replaced a second name."""
        if path.exists():
            with _opened(path, _OLD) as placeholder:
                saved = Path(placeholder.name)
            saved.unlink()
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
    for path in sorted(paths):
        if os.path.lexists(path):
            raise OutputExistsError(f"The output `{path}` exists already; pass --force to replace it.")


def leftovers(folder: Path, belongs: Callable[[str], bool]) -> dict[Path, str]:
    """Find what killed processes have left in a folder, and the names that they would have given it."""
    found = {folder / name: _TEMPORARY.fullmatch(name) for name in sorted(os.listdir(folder))}
    named = {path: match[1] for path, match in found.items() if match is not None}
    return {path: name for path, name in named.items() if belongs(name) and files.is_abandoned(path)}


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system name the file that the user asked for."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _opened(path: Path, suffix: str) -> IO[bytes]:
    number = 0
    while True:
        try:
            # 'x' and not tempfile: the file gets the permissions that the user's umask asks for
            return path.with_name(f".{path.name}.{os.getpid()}-{number}.{suffix}").open("x+b")
        except FileExistsError:  # of a process with the same number on another machine, or without locks
            number += 1
