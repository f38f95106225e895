"""`.safetensors` wherever mmengine takes a `.pth`: `load_from`, `init_cfg`, `init_detector`, `DetInferencer`.

:mod:`ddq_port.registry` registers the loader, so it is there when a model of this package is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.runner.checkpoint import CheckpointLoader

if TYPE_CHECKING:
    from torch import Tensor

INDEX_SUFFIX = ".safetensors.index.json"
_LOCAL_SAFETENSORS = r"(?!\S+://).+\.safetensors(\.index\.json)?$"
_AS_JSON = ("dataset_meta", "CLASSES", "PALETTE")  # what `ddq-convert` keeps as JSON in a header
_NOT_META = ("ddq_manifest",)  # megabytes of digests, for `ddq-convert verify`


class CheckpointFileError(Exception):
    """A file that is called `.safetensors`, or an index of some, is none."""


def register() -> None:
    """Add the loader to mmengine's, by its public means."""
    CheckpointLoader.register_scheme(_LOCAL_SAFETENSORS, load_from_safetensors, force=True)


def is_safetensors(path: str | Path) -> bool:
    """Tell by its name whether a file is for this loader."""
    return re.match(_LOCAL_SAFETENSORS, str(path)) is not None


def load_from_safetensors(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read weights and metadata in the form of mmengine's checkpoints.

    Args:
        filename: a `.safetensors` file or the `.safetensors.index.json` of one in shards.
        map_location: a device, as text or as torch has it; anything else means the CPU.

    Returns:
        `state_dict`, and `meta`: texts of the header, with `dataset_meta` as a data set has it (classes as a tuple).

    Raises:
        FileNotFoundError: if there is no such file or shard.
        CheckpointFileError: if it is damaged.
    """
    import torch

    device = str(map_location) if isinstance(map_location, str | torch.device) else "cpu"
    tensors: dict[str, Tensor] = {}
    texts: dict[str, str] = {}
    for file in files(Path(filename).expanduser()):
        found, header = _read(file, device)
        tensors |= found
        texts |= header
    return dict(state_dict=tensors, meta=_meta(texts))


def files(path: Path) -> tuple[Path, ...]:
    """Return the files that hold the weights: the file itself, or those that an index of shards names.

    Raises:
        FileNotFoundError: if there is no such index.
        CheckpointFileError: if it is none.
    """
    if not path.name.endswith(INDEX_SUFFIX):
        return (path,)
    try:
        names = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
        return tuple(path.with_name(Path(name).name) for name in names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointFileError(
            f"{path} is not an index of shards ({type(error).__name__}); convert it again."
        ) from error


def _read(path: Path, device: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path} can not be found.")  # mmengine's words for a .pth
    try:
        with safe_open(path, framework="pt", device=device) as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointFileError(
            f"{path} is damaged or no safetensors file ({error}); copy or convert it again."
        ) from error


def _meta(texts: Mapping[str, str]) -> dict[str, Any]:
    meta: dict[str, Any] = {name: text for name, text in texts.items() if name not in _NOT_META}
    for name in _AS_JSON:
        if name in meta:
            meta[name] = json.loads(meta[name])
    if isinstance(meta.get("dataset_meta"), dict):
        meta["dataset_meta"] = {name: _as_in_a_data_set(value) for name, value in meta["dataset_meta"].items()}
    return meta


def _as_in_a_data_set(value: Any) -> Any:
    """Return class names as a tuple and a palette as a list of tuples."""
    if not isinstance(value, list):
        return value
    return [tuple(item) for item in value] if value and isinstance(value[0], list) else tuple(value)
