"""What configs of MMDetection 3.x say about a model, read without building it; imports mmengine when it is asked."""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from ddq_port import requirements
from legacy_adapters.bases.configs import fault
from legacy_adapters.family import FamilyError, Variant


def of_new(variant: Variant) -> dict[str, Any]:
    """Return what a model is made of on the new side.

    Raises:
        FamilyError: if its config cannot be read.
    """
    return read(variant.new["config"])


def packaged(name: str) -> Path:
    """Return the path of a config that comes with the installed mmdet, which is not imported for it.

    Raises:
        FamilyError: if mmdet is not installed.
    """
    spec = importlib.util.find_spec("mmdet")
    if spec is None or spec.origin is None:
        raise FamilyError(f"Config {name} is no file, and no mmdet is installed that could have it; install mmdet 3.x.")
    return Path(spec.origin).parent / ".mim" / "configs" / name


def path_of(config: str) -> Path:
    """Return the path of a config of the new side, a file or a name among those of mmdet.

    Raises:
        FamilyError: if there is none.
    """
    path = Path(config) if os.path.isfile(config) else packaged(config)
    if not path.is_file():
        raise FamilyError(f"There is no config {config} of the new side, neither as a file nor among those of mmdet: {path}.")
    return path


@lru_cache(maxsize=None)
def read(config: str) -> dict[str, Any]:
    """Return what a model is made of by its config of the new side, a file or a name among those of mmdet.

    Raises:
        FamilyError: if there is none, or it cannot be read, or is none of 3.x.
        ddq_port.requirements.RequirementError: if mmdet is not installed.
    """
    requirements.check()
    from mmengine.config import Config

    try:
        read = Config.fromfile(str(path_of(config)), import_custom_modules=False)
    except FamilyError:
        raise
    except Exception as error:  # a config is code, which raises anything
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise FamilyError(f"Config {config} of the new side cannot be read: {told}") from error
    wrong = fault(read, "3.x")
    if wrong is not None:
        raise FamilyError(f"Config {config} of the new side {wrong}.")
    return read.model
