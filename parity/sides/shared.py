"""Keep the new side's code out of the legacy process, and name what both sides execute all the same.

An error in code that both sides execute is on both sides, and no comparison sees it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legacy_adapters.family import Family
from legacy_adapters.ground.names import LEGACY, NEW, TOOLKIT
from legacy_adapters.ground.words import counted
from legacy_adapters.provenance.executed import is_installed, is_of_toolkit
from legacy_adapters.registry import FILE

_RECORDER = "legacy_adapters"
#: Packages that either side has a version of, or uses as it is; a port may import them from anywhere.
_COMMON = {"mmcv", "mmdet", "mmengine", "numpy", "projects", "torch", *TOOLKIT, *sys.stdlib_module_names}
_ROOT = Path(__file__).resolve().parents[2]
_SHOWN_DIGITS = 12


def foreign(family: Family, adapter: Path, legacy_repo: Path | None) -> tuple[str, ...]:
    """Return what the legacy process must not load: names of modules, and absolute paths of files and folders.

    That is the packages of the family's port; and, of an adapter outside of this toolkit, its file, the package it lies in
    or the modules beside it, and what it imports that is neither installed nor part of the code bases. What lies in the
    legacy checkout is the legacy side's own, whoever else imports it; so is what the legacy adapter of a family's folder
    imports from there.

    Args:
        family: whose sides are run.
        adapter: file of the new side's adapter.
        legacy_repo: checkout of the legacy code, if there is one.
    """
    adapter = adapter.resolve()
    port = tuple(place for name in family.new.packages for place in (name, *_folder_of(name)))
    if is_of_toolkit(str(adapter)):
        return port
    repo = legacy_repo.resolve() if legacy_repo else None
    places = [adapter]
    legacy: set[Path] = set()
    if (adapter.parent / FILE).is_file():
        old = family.legacy.adapter.resolve()
        legacy = {old, *_imported(old)}
    elif (package := _package_of(adapter)) is not None:
        places.append(package)
    else:
        places += sorted(adapter.parent.glob("*.py"))
    places += [place for place in _imported(adapter) if place not in legacy]
    own = (place for place in dict.fromkeys(places) if place == adapter or _is_own(place, repo))
    return (*port, *map(str, own))


def _folder_of(package: str) -> tuple[str, ...]:
    spec = importlib.util.find_spec(package)
    return tuple(str(Path(place).resolve()) for place in (spec.submodule_search_locations or ())) if spec else ()


def _is_own(place: Path, repo: Path | None) -> bool:
    """Tell what belongs to the new side from the legacy checkout, installed packages and this toolkit."""
    in_repo = repo is not None and (place.is_relative_to(repo) or repo.is_relative_to(place))
    elsewhere = is_installed(str(place)) or is_of_toolkit(str(place)) or _ROOT.is_relative_to(place)
    return not in_repo and not elsewhere


def _package_of(file: Path) -> Path | None:
    """Return the outermost package that a file lies in."""
    package = None
    while (file.parent / "__init__.py").is_file():
        package = file = file.parent
    return package


def _imported(adapter: Path) -> Iterator[Path]:
    """Yield the packages and modules that a file imports by name, but for what is common or cannot be found."""
    try:
        nodes = list(ast.walk(ast.parse(adapter.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return  # the new side will say so
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    yield from _beside(adapter, nodes)
    for name in sorted({name.partition(".")[0] for name in names} - _COMMON):
        beside = adapter.with_name(name)
        origin = beside / "__init__.py" if beside.is_dir() else None
        if origin is None or not origin.is_file():
            try:
                spec = importlib.util.find_spec(name)
            except (ImportError, ValueError):
                continue
            if spec is None or spec.origin is None or not Path(spec.origin).is_file():
                continue
            origin = Path(spec.origin).resolve()
        yield origin.parent if origin.name == "__init__.py" else origin


def _beside(adapter: Path, nodes: Sequence[ast.AST]) -> Iterator[Path]:
    """Yield the modules and packages of its own folder that a file imports: ``from .model import Net``."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                place = adapter.with_name(name.partition(".")[0])
                if place.is_dir():
                    yield place
                elif place.with_suffix(".py").is_file():
                    yield place.with_suffix(".py")


@dataclass(frozen=True)
class SharedCode:
    """What both sides executed.

    Attributes:
        files: path -> SHA-256, without the recorder's; paths of this toolkit are relative to it.
        recorder: path -> SHA-256 of the recorder's files.
        packages: name -> version of installed packages.
        code_bases: those of the packages that a side was asked to run, as ``mmdet``.
    """

    files: Mapping[str, str]
    recorder: Mapping[str, str]
    packages: Mapping[str, str]
    code_bases: tuple[str, ...]

    def line(self) -> str:
        """Return it in one line, of packages the code bases only."""
        parts = [f"{name} {self.packages[name]}".strip() for name in self.code_bases]
        parts += [f"{path} {digest[:_SHOWN_DIGITS]}" for path, digest in self.files.items()]
        if self.recorder:
            every = "".join(f"{path} {digest}\n" for path, digest in self.recorder.items())
            digest = hashlib.sha256(every.encode()).hexdigest()
            files = counted(len(self.recorder), "file")
            parts.append(f"the recorder ({files} of {_RECORDER}, {digest[:_SHOWN_DIGITS]})")
        others = len(self.packages) - len(self.code_bases)
        if others:
            parts.append(f"{counted(others, 'other installed package')} (see --json)")
        return f"both sides execute: {', '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {"files": dict(self.files), "recorder": dict(self.recorder), "packages": dict(self.packages)}


def shared_code(provenance: Mapping[str, Mapping[str, Any]]) -> SharedCode | None:
    """Compare what both sides noted; None if one of them did not, as a golden file, whose process is long gone."""
    one, two = provenance[LEGACY], provenance[NEW]
    if not all("files" in side and "packages" in side for side in (one, two)):
        return None
    files = {path: digest for path, digest in sorted(one["files"].items()) if two["files"].get(path) == digest}
    named = {_short(path): digest for path, digest in files.items()}
    packages = {
        name: package["version"]
        for name, package in sorted(one["packages"].items())
        if two["packages"].get(name, {}).get("file") == package["file"]
    }
    asked = [name for name in one.get("modules", {}) if name in two.get("modules", {}) and name in packages]
    return SharedCode(
        files={path: digest for path, digest in named.items() if not path.startswith(_RECORDER + "/")},
        recorder={path: digest for path, digest in named.items() if path.startswith(_RECORDER + "/")},
        packages=packages,
        code_bases=tuple(asked),
    )


def without_files(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a side's provenance without the lists of what it executed."""
    return {name: value for name, value in provenance.items() if name not in ("files", "packages")}


def _short(path: str) -> str:
    return str(Path(path).relative_to(_ROOT)) if is_of_toolkit(path) and Path(path).is_relative_to(_ROOT) else path
