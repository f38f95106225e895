"""Whether a checkpoint can be loaded as it is: found out by torch's own loader, and by where mmengine looks."""

from __future__ import annotations

import pickle
import zipfile

from converters.formats import shards
from converters.reading.checkpoint import Checkpoint
from legacy_adapters.ground.names import LEGACY


def fault(loaded: Checkpoint, side: str, suffix: str) -> str | None:
    """Say why a checkpoint of the right layout has to be written anew all the same; None if it has not.

    Args:
        loaded: The checkpoint.
        side: Its layout.
        suffix: Of the file to write.
    """
    is_called = loaded.path.name.removesuffix(shards.INDEX_SUFFIX).endswith(".safetensors")
    if is_called != (loaded.format == "safetensors"):
        return f"its name is not one of a {loaded.format} file, by which it is read"
    if loaded.format == "pth":
        return _pth_fault(loaded)
    return "mmengine alone reads .pth only" if side == LEGACY and suffix == ".pth" else None


def _pth_fault(loaded: Checkpoint) -> str | None:
    import torch

    try:
        content = torch.load(loaded.path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(loaded.path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        return f"torch {torch.__version__} does not load it ({type(error).__name__})"
    found = content.get("state_dict", content)
    names = {str(key).removeprefix("module.") for key in found} if isinstance(found, dict) else set()
    return None if names == set(loaded.state_dict) else "its weights do not stand where mmengine looks for them"
