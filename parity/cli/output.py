"""Folders and files of results that appear under their names whole, or not at all.

What is made lies in a hidden folder `.NAME.PID.ddq-parity.tmp` beside its final place, on the same file system, and is
moved there in the end. What was there before stays until then; after an error, an interruption or a termination it is
there as before, and the hidden folder is gone. The folder is locked while it is made: one without a lock was left by a
process that was killed, and the next run into the same place removes it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from legacy_adapters.ground import files

from ..sides.places import RUN, SCRIPT

_NEW, _OLD = "ddq-parity.tmp", "ddq-parity.old"
_HIDDEN = re.compile(rf"\.(?P<name>.+)\.\d+\.({re.escape(_NEW)}|{re.escape(_OLD)})", re.DOTALL)
#: Files of a run that hold paths of the folder they were made in are short.
_LARGEST_JSON = 1 << 22
_FULL = 1 << 20  # bytes that are left on a full disk at most


@contextmanager
def whole_folder(out: Path | None) -> Iterator[Path]:
    """Give an empty folder that becomes ``out``, in place of what is there; a temporary one if ``out`` is None.

    Raises:
        OSError: if it cannot be made or moved.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="ddq-parity-") as folder, _full_disk_told(Path(folder)):
            yield Path(folder)
        return
    target = Path(os.path.realpath(out))
    with _work_folder(target, inside=_must_stay(target)) as (made, old):
        yield made
        _rename_inside(made, target)
        if made.parent == target:  # a folder that cannot be renamed gets other content
            hidden = {made, old}
            moves = [(path, old / path.name) for path in target.iterdir() if path not in hidden]
            old.mkdir()
            _move([*moves, *((path, target / path.name) for path in made.iterdir())])
        else:
            _move([*([(target, old)] if target.exists() else []), (made, target)])


@contextmanager
def whole_files(out: Path, names: Collection[str]) -> Iterator[Path]:
    """Give an empty folder; the files ``names`` in it are moved into ``out``, which is made if it is not there.

    Raises:
        OSError: if something cannot be made or moved.
    """
    target = Path(os.path.realpath(out))
    with _work_folder(target, inside=target.is_dir()) as (made, old):
        yield made
        target.mkdir(exist_ok=True)
        old.mkdir()
        moves = [(target / name, old / name) for name in names if (target / name).exists()]
        _move([*moves, *((made / name, target / name) for name in names)])


def is_hidden(path: Path) -> bool:
    """Tell whether a folder is one of those in which something is made."""
    return _HIDDEN.fullmatch(path.name) is not None


def check_run_folder(out: Path | None, force: bool, marker: str = RUN) -> None:
    """Refuse an output folder that may not be replaced, or not be written.

    Args:
        out: the folder; None for none.
        force: replace an earlier run.
        marker: file that tells an earlier run of the same kind.

    Raises:
        OSError: if it holds an earlier run and ``force`` is not set, or something else, or cannot be made.
    """
    if out is None:
        return
    check_writable(out)
    if not _holds_something(out):
        return
    if not (out / marker).is_file():
        raise FileExistsError(f"{out} is not empty and holds no earlier run; choose another --out.")
    if not force:
        raise FileExistsError(f"{out} holds an earlier run; choose another --out or pass --force.")


def check_script_folder(folder: Path, force: bool) -> None:
    """Refuse a folder for a script that may not be replaced, or not be written.

    Raises:
        OSError: if it holds an earlier script and ``force`` is not set, or something else, or cannot be made.
    """
    check_writable(folder)
    if not _holds_something(folder):
        return
    if not (folder / SCRIPT).is_file():
        raise FileExistsError(f"{folder} is not empty and holds no {SCRIPT}; choose another --out.")
    if not force:
        raise FileExistsError(f"{folder} holds an earlier {SCRIPT}; choose another --out or pass --force.")


def check_new_file(file: Path, force: bool) -> None:
    """Refuse a file that may not be replaced, or not be written.

    Raises:
        OSError: saying why.
    """
    folder = file.absolute().parent
    if file.exists() and not force:
        raise FileExistsError(f"{file} exists; choose another name or pass --force.")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; make it, or choose another place than {file}.")
    check_writable(folder)


def check_new_files(out: Path | None, names: Collection[str], force: bool) -> None:
    """Refuse files in a folder, if it is given, that may not be replaced, or a folder that cannot be written to.

    Raises:
        OSError: saying why.
    """
    if out is None:
        return
    check_writable(out)
    taken = [name for name in names if (out / name).exists()]
    if taken and not force:
        raise FileExistsError(f"{out / taken[0]} exists; choose another --out or pass --force.")


def _holds_something(folder: Path) -> bool:
    return folder.exists() and not all(map(is_hidden, folder.iterdir()))


def check_writable(out: Path) -> None:
    """Refuse a folder that cannot be made, or not be written to, before anything is computed for it.

    Raises:
        OSError: saying why.
    """
    place = Path(os.path.realpath(out))
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(f"{out} cannot be a folder, because {place} is a file; choose another one.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"{place} cannot be written to; choose another place than {out}.")


@contextmanager
def _work_folder(target: Path, inside: bool) -> Iterator[tuple[Path, Path]]:
    """Give a new folder to work in and the name of one for what is replaced; remove both in the end.

    Args:
        target: what is made.
        inside: make them in the target, not beside it.
    """
    parent = target if inside else target.parent
    missing = [place for place in (parent, *parent.parents) if not place.exists()]
    made, old = (parent / f".{target.name}.{os.getpid()}.{suffix}" for suffix in (_NEW, _OLD))
    lock = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _tidy_up(target, parent)
        made.mkdir()
        lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        files.lock(lock)
        with _full_disk_told(made):
            yield made, old
    finally:
        for path in (made, old):
            shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        if not target.exists():
            for place in missing:
                with suppress(OSError):
                    place.rmdir()


@contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """Say that a disk is full where that is why a side crashed: it may not even have been able to write its report."""
    try:
        yield
    except Exception as error:
        if folder.is_dir() and shutil.disk_usage(folder).free < _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.parent)) from error
        raise


def _tidy_up(target: Path, parent: Path) -> None:
    """Remove what killed processes left of ``target``; put back what they had taken away and not replaced."""
    for path in parent.iterdir():
        found = _HIDDEN.fullmatch(path.name)
        if found is None or found["name"] != target.name or not files.is_abandoned(path):
            continue
        if path.name.endswith(_OLD) and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _must_stay(target: Path) -> bool:
    """Tell whether a folder cannot be renamed: where another file system begins, or its parent is not writable."""
    return target.is_dir() and (os.path.ismount(target) or not os.access(target.parent, os.W_OK))


def _move(moves: Iterable[tuple[Path, Path]]) -> None:
    """Rename all of these, or after an error none."""
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            done.append((source, target))
            source.rename(target)
    except BaseException:
        for source, target in reversed(done):
            if target.exists() and not source.exists():
                target.rename(source)
        raise


def _rename_inside(made: Path, target: Path) -> None:
    """Write the final path into the job files and the like that hold the one of the folder they were made in."""
    before, after = (json.dumps(str(path))[1:-1] for path in (made, target))
    for path in made.glob("*.json"):
        if path.stat().st_size <= _LARGEST_JSON:
            text = path.read_text(encoding="utf-8")
            if before in text:
                path.write_text(text.replace(before, after), encoding="utf-8")
