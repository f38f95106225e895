"""Find families: those in ``families/`` beside this file, those that other packages install, and any folder.

A package installs one with an entry point of the group ``ddq_port.families`` that names its ``FAMILY``. A folder is
a family if it has a ``family.py`` with a ``FAMILY``.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import importlib.util
import os
import re
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Tuple

from .family import SIDES, Family, FamilyError

GROUP = "ddq_port.families"
FOLDER = Path(__file__).with_name("families")
FILE = "family.py"


def names() -> Tuple[str, ...]:
    """Return the names of all families that are found by name, those of this package first."""
    return tuple(dict.fromkeys((*own(), *_installed())))


def get(reference: str) -> Family:
    """Return a family by its name or by the path of its folder.

    Raises:
        FamilyError: if there is none, or its file cannot be used.
    """
    if reference in own():
        return _read(str(FOLDER / reference), True)
    if reference in _installed():
        return _of_entry_point(reference)
    folder = Path(reference)
    if (folder / FILE).is_file():
        return _read(str(folder.resolve()), False)
    if folder.is_dir():
        raise FamilyError(f"The folder {reference} has no {FILE}; `ddq-parity new-family {reference}` writes a template.")
    near = difflib.get_close_matches(reference, names(), n=1)
    meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(names())}"
    raise FamilyError(
        f"There is no family `{reference}`; {meant}{'' if near else f', or give the folder of one, which has a {FILE}.'}"
    )


def every() -> Tuple[Family, ...]:
    """Return all families that are found by name, but for those of other packages that cannot be loaded."""
    found = [get(name) for name in own()]
    for name in names():
        if name not in own():
            with suppress(FamilyError):  # told to who asks for it by name; others must not be stopped by it
                found.append(get(name))
    return tuple(found)


@lru_cache(maxsize=None)
def own() -> Tuple[str, ...]:
    """Return the names of the families of this package."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/" + FILE)))


@lru_cache(maxsize=None)
def _installed() -> Dict[str, Any]:
    if not _announced():
        return {}
    from importlib.metadata import entry_points

    found = entry_points()
    # from Python 3.10 on it selects; before, it is a dict
    points = found.select(group=GROUP) if hasattr(found, "select") else found.get(GROUP, ())
    return {point.name: point for point in points}


def _announced() -> bool:
    """Tell whether what is installed names the group anywhere; quicker than to parse what every package announces."""
    for entry in sys.path:
        if os.path.isfile(entry):
            return True  # an archive, in which only the library looks
        for file in glob.iglob(os.path.join(glob.escape(entry or os.curdir), "*-info", "entry_points.txt")):
            with open(file, "rb") as announced:
                if GROUP.encode() in announced.read():
                    return True
    return False


@lru_cache(maxsize=None)
def _of_entry_point(name: str) -> Family:
    point = _installed()[name]
    try:
        family = point.load()
        folder = Path(sys.modules[point.value.partition(":")[0]].__file__ or "").parent
    except Exception as error:
        raise FamilyError(f"Family `{name}` ({point.value}) cannot be loaded: {_one_line(error)}.") from error
    return _checked(family, folder, True, f"The entry point `{point.value}`")


@lru_cache(maxsize=None)
def _read(folder: str, installed: bool) -> Family:
    file = Path(folder) / FILE
    try:
        module = load_beside(file, "family_of_" + Path(folder).name)
    except Exception as error:
        raise FamilyError(f"{_line_of(error, file)} cannot be loaded: {_one_line(error)}.") from error
    return _checked(getattr(module, "FAMILY", None), Path(folder), installed, str(file))


def shown_path(dotted: str) -> str:
    """Return the dotted path of a class for a message: as in its file's folder, not as :func:`load_beside` has it."""
    return re.sub(r"^(\w+)_[0-9a-f]{8}\.", r"\1.", dotted)


def load_beside(file: Path, name: str) -> ModuleType:
    """Execute a Python file so that it can import the files beside it: ``from .rules import RULES``.

    Args:
        file: to be executed.
        name: of the package that stands for its folder; made unique by the folder's path.
    """
    package = name + "_" + hashlib.sha256(str(file.parent).encode()).hexdigest()[:8]
    if package not in sys.modules:
        holder = ModuleType(package)
        holder.__path__ = [str(file.parent)]
        sys.modules[package] = holder
    full = package + "." + file.stem
    spec = importlib.util.spec_from_file_location(full, str(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full]
        raise
    return module


def _checked(family: Any, folder: Path, installed: bool, where: str) -> Family:
    """Complete a family and refuse one that lacks something.

    Raises:
        FamilyError: saying what.
    """
    if not isinstance(family, Family):
        found = "none" if family is None else "a " + type(family).__name__
        raise FamilyError(f"{where} must have FAMILY, a legacy_adapters.family.Family; found {found}.")
    if not family.variants:
        raise FamilyError(f"{where}: FAMILY has no variants; give at least one Variant.")
    twice = [v.name for number, v in enumerate(family.variants) if v.name in [w.name for w in family.variants[:number]]]
    if twice:
        raise FamilyError(f"{where}: FAMILY has the variant `{twice[0]}` twice; expected every name once.")
    sides = {name: replace(family.side(name), adapter=folder / family.side(name).adapter) for name in SIDES}
    for name, side in sides.items():
        if not side.adapter.is_file():
            raise FamilyError(f"{where}: the adapter of the {name} side, {side.adapter}, does not exist.")
    layouts, demo = (None if path is None else folder / path for path in (family.layouts, family.demo))
    return replace(family, folder=folder, installed=installed, layouts=layouts, demo=demo, **sides)


def called(family: Family, function: str, *args: Any) -> Any:
    """Call a function of a family's file, such as ``inputs`` or ``rules``.

    Raises:
        FamilyError: with file and line, if it raises an error.
    """
    try:
        return getattr(family, function)(*args)
    except FamilyError:
        raise
    except Exception as error:
        file = (family.folder or Path()) / FILE
        raise FamilyError(f"{_line_of(error, file)} {function} of family {family.name} raised {_one_line(error)}.") from error


def _line_of(error: BaseException, file: Path) -> str:
    """Return the place in a family's folder that raised an error: of this file or of one beside it."""
    folder = str(file.parent)
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        frames.append((error.filename, error.lineno))
    own = [(name, line) for name, line in frames if os.path.dirname(name) == folder]
    return f"{own[-1][0]}, line {own[-1][1]}," if own else str(file)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(":. ")
