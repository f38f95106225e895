"""Read checkpoints, `.pth` and `.safetensors`, without running anything that they hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import CheckpointError, one_line
from converters.inert_pickle import TensorRef
from converters.torch_zip import TorchZip

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("state_dict", "model")
_PLAIN = (str, int, float, bool, type(None))
_STAND_IN = object()


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds, tensors read, everything else made harmless.

    Attributes:
        path: The file.
        format: `pth` or `safetensors`.
        state_dict: The model's tensors by key, without a `module.` that all keys had.
        meta: The plain part (text, numbers, lists, dicts) of the file's `meta`.
        foreign: Names of the globals in the pickle that were replaced by inert stand-ins.
        other_keys: Top-level keys beside the state dict and `meta`, such as `optimizer`.
    """

    path: Path
    format: str
    state_dict: Mapping[str, Tensor]
    meta: Mapping[str, Any]
    foreign: tuple[str, ...]
    other_keys: tuple[str, ...]


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint; its format is told by its content, not by its suffix.

    Raises:
        CheckpointError: If there is no such file, or it is empty, truncated or no checkpoint.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        fault = "is not a regular file" if path.exists() else "does not exist"
        raise CheckpointError(f"The checkpoint `{path}` {fault}, expected a .pth or .safetensors file.")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise CheckpointError(f"The checkpoint `{path}` is empty; copy or download it again.")
    try:
        return _reader(head)(path)
    except CheckpointError as error:
        raise CheckpointError(f"Cannot read the checkpoint `{path}`: {one_line(error)}.") from error


def _reader(head: bytes) -> Callable[[Path], Checkpoint]:
    if head[:4] == b"PK\x03\x04":
        return _read_torch_zip
    if head[8:9] == b"{":
        return _read_safetensors
    if head[:1] == b"\x80":
        raise CheckpointError(
            "it is a bare pickle, as torch wrote before 1.6; load it with torch there and save it again"
        )
    raise CheckpointError("it is neither a torch zip file nor a safetensors file")


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(
            f"the safetensors library refuses it ({one_line(error)}); the file is truncated or damaged"
        ) from error
    if not tensors:
        raise CheckpointError("it holds no tensors")
    return Checkpoint(path, "safetensors", _strip_module(tensors), _decoded(metadata), (), ())


def _read_torch_zip(path: Path) -> Checkpoint:
    with TorchZip(path) as archive:
        content, foreign = archive.unpickle()
        refs, rest = _find_state_dict(content)
        tensors = {key: archive.tensor(ref) for key, ref in refs.items()}
    meta = _plain(rest.pop("meta", {}))
    return Checkpoint(
        path,
        "pth",
        _strip_module(tensors),
        meta if isinstance(meta, dict) else {},
        foreign,
        tuple(sorted(str(key) for key in rest)),
    )


def _find_state_dict(content: Any) -> tuple[dict[str, TensorRef], dict[Any, Any]]:
    """Return the state dict, still unread, and what stands beside it at the top level."""
    if not isinstance(content, dict):
        raise CheckpointError("its top level is not a dict")
    for name in _WRAPPERS:
        if isinstance(content.get(name), dict):
            return _checked(content[name], f"`{name}`"), {key: content[key] for key in content if key != name}
    return _checked(content, "its top level"), {}


def _checked(state_dict: dict[Any, Any], where: str) -> dict[str, TensorRef]:
    if not state_dict:
        raise CheckpointError(f"{where} holds no tensors")
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, TensorRef):
            raise CheckpointError(
                f"{where} is no state dict: `{key}` is not a plain tensor (looked for "
                f"{', '.join(_WRAPPERS)} and a top level of tensors)"
            )
    return state_dict


def _strip_module(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away the prefix that DistributedDataParallel leaves, if every key has it."""
    if all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return tensors


def _plain(value: Any) -> Any:
    """Copy the plain part of a value; dict and list items that are not plain are left out."""
    if isinstance(value, dict):
        items = {key: _plain(item) for key, item in value.items() if isinstance(key, str)}
        return {key: item for key, item in items.items() if item is not _STAND_IN}
    if isinstance(value, (list, tuple)):
        return type(value)(item for item in map(_plain, value) if item is not _STAND_IN)
    return value if type(value) in _PLAIN else _STAND_IN


def _decoded(metadata: dict[str, str]) -> dict[str, Any]:
    """Undo the JSON in which a safetensors file keeps what is not text."""
    decoded: dict[str, Any] = dict(metadata)
    if "dataset_meta" in metadata:
        try:
            decoded["dataset_meta"] = json.loads(metadata["dataset_meta"])
        except ValueError:
            decoded["dataset_meta"] = metadata["dataset_meta"]
    return decoded
