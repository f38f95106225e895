"""Configs as installed package data, found by name.

>>> from ddq_port import configs
>>> configs.names()
>>> cfg = configs.load("ddq-detr-4scale_r50_8xb2-12e_coco")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ddq_port import requirements

if TYPE_CHECKING:
    from mmengine.config import Config

_FOLDER = Path(__file__).parent

#: Config of each variant of DDQ-DETR, as the command lines name them.
VARIANTS = {
    "r50_4scale": "ddq-detr-4scale_r50_8xb2-12e_coco",
    "r50_5scale": "ddq-detr-5scale_r50_8xb2-12e_coco",
    "swinl_4scale": "ddq-detr-4scale_swinl_8xb2-30e_coco",
    "tiny_4scale": "ddq-detr-4scale_tiny",
    "tiny_5scale": "ddq-detr-5scale_tiny",
    "tiny_swinl": "ddq-detr-4scale_tiny-swinl",
    "tiny_r18": "ddq-detr-4scale_tiny-r18",
    "tiny_1class": "ddq-detr-4scale_tiny-1class",
}


def names() -> tuple[str, ...]:
    """Return the names of all configs, sorted, without ``.py``; those in folders with the folder in front."""
    found = [path.relative_to(_FOLDER).with_suffix("") for path in _FOLDER.rglob("*.py") if path.stem != "__init__"]
    return tuple(sorted(path.as_posix() for path in found if "_base_" not in path.parts))


def path(name: str) -> Path:
    """Return the file of config ``name`` (with or without ``.py``).

    Raises:
        FileNotFoundError: if there is no such config; the message lists those there are.
    """
    file = _FOLDER / f"{name.removesuffix('.py')}.py"
    if not file.is_file() or file.stem == "__init__":
        raise FileNotFoundError(f"No config named {name!r} in ddq_port; there are {', '.join(names())}.")
    return file


def load(name: str) -> Config:
    """Read config ``name`` with mmengine.

    Raises:
        FileNotFoundError: if there is no such config.
        ddq_port.requirements.RequirementError: if mmengine is not installed.
    """
    requirements.check(("mmengine",))
    from mmengine.config import Config

    return Config.fromfile(path(name))
