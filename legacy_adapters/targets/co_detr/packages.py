"""Packages that the official code imports, where they are not all that they need themselves.

timm's layers need torch alone, but its other modules, which are imported before them, need torchvision.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType
from typing import List

from legacy_adapters import shims
from legacy_adapters.origin import UnusableInputError

#: As they are imported, besides mmcv; and how they are installed.
_NEEDED = ("timm", "fairscale", "fvcore", "einops")
_INSTALL = "timm==0.6.13 fairscale==0.4.13 fvcore iopath portalocker yacs tabulate einops"


def make_importable(repo: str, folder: str) -> None:
    """Find the packages in a folder of the checkout, if they are there, or in the interpreter.

    Args:
        repo: path of the checkout.
        folder: name in it.

    Raises:
        UnusableInputError: naming those that are missing.
    """
    path = os.path.join(repo, folder)
    if os.path.isdir(path) and path not in sys.path:
        sys.path.insert(0, path)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UnusableInputError(
            "Co-DETR imports {}, not found in {} or {}; run pip install 'setuptools<80' wheel, then MMCV_WITH_OPS=0 "
            "pip install --no-deps --no-build-isolation --target {} mmcv==1.7.2 {}.".format(
                ", ".join(missing), path, sys.executable, path, _INSTALL
            )
        )
    shims.IN_PLACE.extend(_timm())


def _timm() -> List[str]:
    """Let timm's layers be imported without what stands before them, where that cannot be imported."""
    if "timm" in sys.modules or _has_torchvision():
        return []
    folder = os.path.dirname(str(importlib.util.find_spec("timm").origin))  # type: ignore[union-attr]
    for name, path in (("timm", folder), ("timm.models", os.path.join(folder, "models"))):
        package = ModuleType(name)
        package.__path__ = [path]
        sys.modules[name] = package
    return ["timm without timm.data"]


def _has_torchvision() -> bool:
    return getattr(sys.modules.get("torchvision"), "__file__", None) is not None
