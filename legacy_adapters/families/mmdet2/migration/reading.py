"""Read configs of either version, without running what they import."""

from __future__ import annotations

import os
from typing import Any

from legacy_adapters.bases.configs import fault
from legacy_adapters.family import FamilyError

from ..model_configs import packaged


def read(config: str, version: str) -> dict[str, Any]:
    """Return what a config says, as plain data.

    Args:
        config: a file; one of 3.x may also be a name among those of the installed mmdet.
        version: of MMDetection that it must be for, 2.x or 3.x.

    Raises:
        FamilyError: if there is none, or it cannot be read, or is for another version.
    """
    from mmengine.config import Config

    path = config
    if not os.path.isfile(path) and version == "3.x":
        path = str(packaged(config))
    if not os.path.isfile(path):
        raise FamilyError(f"There is no config {config}; name the file of a config of MMDetection {version}.")
    try:
        read = Config.fromfile(path, import_custom_modules=False, format_python_code=False)
        plain = read.to_dict()
    except Exception as error:  # a config is code, which raises anything
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise FamilyError(f"Config {config} cannot be read: {told}") from error
    wrong = fault(plain, version)
    if wrong is not None:
        raise FamilyError(f"Config {config} {wrong}.")
    return {key: value for key, value in plain.items() if not key.startswith("_")}
