"""Tell whether code is as it was published: a checkout by the commits that are known, a package by its own record.

Imports the standard library only: ``python originals.py NAME...`` prints of installed packages which files are others
than those that were installed, as JSON, in whichever interpreter it is asked of.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

#: What the provenance has in place of a commit.
UNKNOWN = "unknown: its code is none of the commits this adapter was made for"
#: Distributions that supply a package of another name.
_ALSO = {"mmcv": ("mmcv-lite",)}


def fingerprint(folder: str, parts: Sequence[str]) -> str:
    """Return a SHA-256 over the Python files below ``parts`` of ``folder``, independent of where it lies."""
    digest = hashlib.sha256()
    for part in parts:
        for base, folders, files in os.walk(os.path.join(folder, part)):
            folders.sort()
            for name in sorted(files):
                if name.endswith(".py"):
                    path = os.path.join(base, name)
                    digest.update(os.path.relpath(path, folder).replace(os.sep, "/").encode() + b"\0")
                    with open(path, "rb") as file:
                        digest.update(file.read() + b"\0")
    return digest.hexdigest()


def altered(packages: Sequence[str]) -> Dict[str, List[str]]:
    """Return package -> Python files, where it is imported from, that are not those which were installed.

    That is files with other contents, files that are gone and files that came later. A package that is imported from
    elsewhere counts by its files' contents. Of one whose files nobody noted, as of a source tree, the list is empty; a
    package that is as it was installed, or not at all, is left out.
    """
    found = {}
    for package in packages:
        folder = _folder(package)
        if folder is None:
            continue
        noted = {name: value for one in _distributions(package) for name, value in _noted(one, package).items()}
        here = set(_sources(folder, package))
        changed = [name for name in here | set(noted) if name not in here or not _is_noted(folder, name, noted)]
        if changed or not noted:
            found[package] = sorted(changed) if noted else []
    return found


def _folder(package: str) -> Optional[str]:
    """Return the folder that holds the package's folder, where it is imported from; None if it is not there."""
    from importlib import util

    try:
        spec = util.find_spec(package)
    except (ImportError, ValueError):
        return None
    return None if spec is None or not spec.origin else os.path.dirname(os.path.dirname(os.path.abspath(spec.origin)))


def _distributions(package: str) -> List[Any]:
    from importlib import metadata

    found = []
    for name in (package, *_ALSO.get(package, ())):
        try:
            found.append(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue
    return found


def _noted(distribution: Any, package: str) -> Dict[str, Any]:
    """Return name -> hash of the package's Python files, as they were installed."""
    files = {str(file): file.hash for file in distribution.files or () if file.hash is not None}
    return {name: value for name, value in files.items() if name.endswith(".py") and name.startswith(package + "/")}


def _sources(folder: str, package: str) -> Iterator[str]:
    for base, _, files in os.walk(os.path.join(folder, package)):
        for name in files:
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(base, name), folder).replace(os.sep, "/")


def _is_noted(folder: str, name: str, noted: Mapping[str, Any]) -> bool:
    return name in noted and _digest(os.path.join(folder, name), noted[name].mode) == noted[name].value


def _digest(path: str, mode: str) -> Optional[str]:
    try:
        with open(path, "rb") as file:
            return base64.urlsafe_b64encode(hashlib.new(mode, file.read()).digest()).rstrip(b"=").decode()
    except OSError:
        return None


def remark(provenance: Mapping[str, Any]) -> str:
    """Say of a side's provenance that its code is not as published; empty if it is, or if nobody can tell."""
    if str(provenance.get("commit", "")).startswith("unknown"):
        return "legacy code of no known commit"
    changed = provenance.get("altered") or {}
    return "legacy code other than published: {}".format(_listed(changed)) if changed else ""


def _listed(changed: Mapping[str, Sequence[str]]) -> str:
    parts: List[Tuple[int, str]] = [(len(files), package) for package, files in sorted(changed.items())]
    return ", ".join(
        "{} file{} of {}".format(count, "s" * (count > 1), package) if count else package + ", installed without a record"
        for count, package in parts
    )


if __name__ == "__main__":
    print(json.dumps(altered(sys.argv[1:])))
