"""What the configs of MMDetection 3.x say about a model, read without building it; imports mmengine when it is asked."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

from legacy_adapters.bases.configs import fault
from legacy_adapters.family import FamilyError, Variant


def kinds(variant: Variant) -> tuple[str, ...]:
    """Return the types of a model's detector and of its head, as the new config names them, without a scope."""
    model = _model(variant.new["config"])
    types = (model.get("type"), (model.get("bbox_head") or {}).get("type"))
    return tuple(_name(of) for of in types if of is not None)


def packaged(name: str) -> Path:
    """Return the path of a config that comes with the installed mmdet, which is not imported for it.

    Raises:
        FamilyError: if mmdet is not installed.
    """
    spec = importlib.util.find_spec("mmdet")
    if spec is None or spec.origin is None:
        raise FamilyError(f"Config {name} is no file, and there is no mmdet whose configs it could be among; install mmdet.")
    return Path(spec.origin).parent / ".mim" / "configs" / name


@cache
def _model(config: str) -> dict[str, Any]:
    from mmengine.config import Config

    path = Path(config) if os.path.isfile(config) else packaged(config)
    if not path.is_file():
        raise FamilyError(f"There is no config {config} of the new side; it is no file, and none of mmdet's in {path}.")
    try:
        read = Config.fromfile(str(path), import_custom_modules=False)
    except Exception as error:  # a config is code, which raises anything
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise FamilyError(f"Config {config} of the new side cannot be read: {told}") from error
    wrong = fault(read, "3.x")
    if wrong is not None:
        raise FamilyError(f"Config {config} of the new side {wrong}.")
    return read.model


def _name(of: Any) -> str:
    """Return the name of a type that a config names by a string, or imports."""
    return (of if isinstance(of, str) else of.__name__).rpartition(".")[2]
