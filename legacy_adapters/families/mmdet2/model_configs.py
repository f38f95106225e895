"""What configs of MMDetection 3.x say about a model, read without building it; imports mmengine when it is asked."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

from legacy_adapters.family import FamilyError, Variant


def of_new(variant: Variant) -> dict[str, Any]:
    """Return what a model is made of on the new side.

    Raises:
        FamilyError: if its config cannot be read.
    """
    return _model(variant.new["config"])


def packaged(name: str) -> Path:
    """Return the path of a config that comes with the installed mmdet, which is not imported for it.

    Raises:
        FamilyError: if mmdet is not installed.
    """
    spec = importlib.util.find_spec("mmdet")
    if spec is None or spec.origin is None:
        raise FamilyError(f"Config {name} is no file, and no mmdet is installed that could have it; install mmdet 3.x.")
    return Path(spec.origin).parent / ".mim" / "configs" / name


@cache
def _model(config: str) -> dict[str, Any]:
    from mmengine.config import Config

    path = config if os.path.isfile(config) else packaged(config)
    try:
        return Config.fromfile(str(path), import_custom_modules=False).model
    except (OSError, AttributeError) as error:
        raise FamilyError(f"Config {config} of the new side cannot be read: {error}") from error
