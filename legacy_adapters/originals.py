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
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

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
    """Return package -> its Python files that are others than those which were installed, or are gone.

    A package without such a file is left out; so is one whose files nobody noted, as of a source tree on the path.
    """
    found = {}
    for package in packages:
        changed = [name for distribution in _distributions(package) for name in _changed(distribution, package)]
        if changed:
            found[package] = sorted(changed)
    return found


def _distributions(package: str) -> List[Any]:
    from importlib import metadata

    found = []
    for name in (package, *_ALSO.get(package, ())):
        try:
            found.append(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue
    return found


def _changed(distribution: Any, package: str) -> List[str]:
    changed = []
    for file in distribution.files or ():
        name = str(file)
        if name.endswith(".py") and name.startswith(package + "/") and file.hash is not None:
            if _digest(str(file.locate()), file.hash.mode) != file.hash.value:
                changed.append(name)
    return changed


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
    return ", ".join("{} file{} of {}".format(count, "s" * (count > 1), package) for count, package in parts)


if __name__ == "__main__":
    print(json.dumps(altered(sys.argv[1:])))
