"""Tell which files this process executed, so that those which both sides executed can be named.

Two sources are put together: Python's audit events of code that is executed and of Python files that are read (a config
leaves no module behind), and what ``sys.modules`` holds (a fork of a process that had imported it saw no event). Files
of the standard library and of installed packages are not listed one by one; of installed packages stand name and version.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import sysconfig
from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator, List, Set, Tuple

from ..ground.names import TOOLKIT

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
_INSTALLED = ("site-packages", "dist-packages")
_RECORD = ".dist-info"  # ends the name of the folder that an installer leaves beside a package
_STANDARD = tuple({os.path.realpath(sysconfig.get_paths()[name]) + os.sep for name in ("stdlib", "platstdlib")})

_seen: Set[str] = set()
_watching: List[bool] = []  # the state of the one hook; hooks cannot be taken away


def watch() -> None:
    """Note from now on what is executed; a second call does nothing."""
    if not _watching:
        _watching.append(True)
        sys.addaudithook(_note)


@contextmanager
def unwatched() -> Iterator[None]:
    """Note nothing in here: files are read and not executed."""
    before = list(_watching)
    _watching[:] = [False]
    try:
        yield
    finally:
        _watching[:] = before


def _note(event: str, args: Any) -> None:
    if event == "exec":
        _seen.add(getattr(args[0], "co_filename", ""))
    elif event == "open" and _watching[:1] == [True]:
        path, mode, flags = args
        reads = mode.startswith("r") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR) == 0
        if reads and isinstance(path, str) and path.endswith(".py"):
            _seen.add(path)


def files() -> Dict[str, str]:
    """Return path -> SHA-256 of every file that was executed and is of no installed package but this toolkit."""
    paths = {getattr(module, "__file__", None) for module in list(sys.modules.values())} | _seen
    found = {_resolved(path) for path in paths if isinstance(path, str) and os.path.isfile(path)}
    with unwatched():
        return {path: _digest(path) for path in sorted(found) if is_of_toolkit(path) or not _is_known(path)}


def digests(paths: Iterable[str]) -> Dict[str, str]:
    """Return path -> SHA-256 of files, but for those of the standard library."""
    with unwatched():
        return {path: _digest(path) for path in sorted(map(_resolved, paths)) if not path.startswith(_STANDARD)}


def packages() -> Dict[str, Dict[str, str]]:
    """Return name -> version and file of the installed packages that were imported."""
    found = {}
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if "." not in name and isinstance(path, str) and is_installed(path) and not is_of_toolkit(path):
            version = getattr(module, "__version__", "")
            found[name] = dict(file=_resolved(path), version=version if isinstance(version, str) else "")
    return found


def is_of_toolkit(path: str) -> bool:
    """Tell whether a file is one of this toolkit's."""
    path = _resolved(path)
    return path.startswith(_ROOT + os.sep) and path[len(_ROOT) + 1 :].split(os.sep)[0] in TOOLKIT


def is_installed(path: str) -> bool:
    """Tell whether a file is of an installed package: by its folder's name, or by what ``pip --target`` leaves there."""
    return any(part in path.split(os.sep) for part in _INSTALLED) or _resolved(path).startswith(
        _targets(tuple(sys.path))
    )


@functools.lru_cache(None)
def _targets(places: Tuple[str, ...]) -> Tuple[str, ...]:
    """Return those of the folders that hold the record of an installed package, as beginnings of paths."""
    folders = [os.path.realpath(place) for place in places if place and os.path.isdir(place)]
    return tuple(folder + os.sep for folder in folders if any(n.endswith(_RECORD) for n in os.listdir(folder)))


def _is_known(path: str) -> bool:
    return path.startswith(_STANDARD) or is_installed(path)


@functools.lru_cache(None)
def _resolved(path: str) -> str:
    """Return ``os.path.realpath``; of the thousands of files here most lie in folders that were resolved before."""
    folder, name = os.path.split(path)
    return os.path.realpath(path) if os.path.islink(path) else os.path.join(_resolved_folder(folder), name)


_resolved_folder = functools.lru_cache(None)(os.path.realpath)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class SharedCodeError(RuntimeError):
    """The legacy process holds a module of the new side; the message is one line."""


def _lies_in(path: str, places: Tuple[str, ...]) -> bool:
    """Tell whether a file is one of ``places`` or lies in such a folder."""
    return any(path == place or path.startswith(place + os.sep) for place in places)


def check_apart(foreign: List[str]) -> None:
    """Refuse modules of the new side in this process.

    Args:
        foreign: names of modules, whose submodules count as well, and paths of files and folders, which are told by
            being absolute. Files and folders that are loaded by their paths to serve both sides are excepted.

    Raises:
        SharedCodeError: naming the first module, its file and what it belongs to.
    """
    from ..standin import SHARED

    allowed = tuple(map(os.path.realpath, SHARED))
    places = tuple(os.path.realpath(entry) for entry in foreign if os.path.isabs(entry))
    names = tuple(entry for entry in foreign if not os.path.isabs(entry))
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        path = _resolved(file) if isinstance(file, str) else ""
        by_name = any(name == entry or name.startswith(entry + ".") for entry in names)
        by_place = _lies_in(path, places) and not _lies_in(path, allowed)
        if by_name or by_place:
            raise SharedCodeError(
                "the legacy process holds module `{}` of the new side ({}), expected none: a comparison would not see "
                "what that changes on both sides; find what imports it there.".format(name, path or "no file")
            )
