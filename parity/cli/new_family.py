"""What ``ddq-parity new-family`` does: write a family that works, to begin from."""

from __future__ import annotations

import re
from pathlib import Path

import legacy_adapters

from ..sides.settings import SettingsError
from .output import whole_folder

_TEMPLATE = Path(legacy_adapters.__file__).with_name("template")
_NAME = "NAME"


def write(folder: Path) -> tuple[str, ...]:
    """Write the template into ``folder`` and return the names of its files.

    Raises:
        SettingsError: if the folder holds something, or its name cannot be that of a family.
        OSError: if it cannot be written.
    """
    name = folder.resolve().name
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise SettingsError(
            f"{name!r} cannot be the name of a family; choose a folder named with letters, digits and _."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder} exists and holds something; choose a folder that does not exist, or is empty.")
    files = sorted(path for path in _TEMPLATE.iterdir() if path.suffix == ".py")
    with whole_folder(folder) as made:
        for path in files:
            text = path.read_text(encoding="utf-8").replace(f'"{_NAME}"', f'"{name}"')
            (made / path.name).write_text(text, encoding="utf-8")
    return tuple(path.name for path in files)
