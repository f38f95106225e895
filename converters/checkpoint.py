"""Read checkpoints, `.pth` and `.safetensors`, without running anything that they hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters import averages, safetensors_file, shards, torch_legacy, torch_zip
from converters.errors import CheckpointError, MalformedError, listed, one_line
from converters.inert_pickle import Foreign, Unpickled
from converters.plain import plain
from converters.stored import SourceFile, StoredTensor, check_all

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("state_dict", "model")
CLASS_META = ("dataset_meta", "CLASSES", "PALETTE")  # what inference needs beside the weights
MANIFEST_KEY = "ddq_manifest"  # where a converted file keeps its manifest: in the metadata, in `meta` of .pth
_HEAD = 512  # bytes that tell the format


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds; tensors are still in it, and everything that could act is made inert.

    Attributes:
        path: The file.
        format: `pth` or `safetensors`.
        state_dict: The model's tensors by key, without a `module.` that all keys had.
        content: What stands beside the state dict at the top level, tensors as `StoredTensor`, unknown objects as
            `inert_pickle.Foreign`; empty for safetensors.
        meta: The plain part (text, numbers, lists, dicts) of the file's `meta`.
        foreign: Names of the globals in the pickle that were replaced by inert stand-ins.
        other_keys: Top-level keys beside the state dict and `meta`, such as `optimizer`.
        meta_left_out: What is not in `meta`: each place, dotted, and the kind of what stood there.
        averages: Averaged weights that stood among the state dict's keys, by their own keys.
    """

    path: Path
    format: str
    state_dict: Mapping[str, StoredTensor]
    content: Mapping[Any, Any]
    meta: Mapping[str, Any]
    foreign: tuple[str, ...]
    other_keys: tuple[str, ...]
    meta_left_out: tuple[tuple[str, str], ...] = ()
    averages: Mapping[str, StoredTensor] = field(default_factory=dict)

    def to_torch(self) -> dict[str, Tensor]:
        """Read the state dict as tensors of torch.

        Raises:
            CheckpointError: If the file is damaged.
            OSError: If it cannot be read.
        """
        return {key: tensor.to_torch() for key, tensor in self.state_dict.items()}

    def check(self) -> None:
        """Verify the check sums of all that the state dict lies in.

        Raises:
            CheckpointError, OSError: As `to_torch` does.
        """
        check_all({tensor.storage: None for tensor in self.state_dict.values()})


def read(path: str | Path) -> Checkpoint:
    """Read what a checkpoint holds, but not yet its tensors; its format is told by its content, not by its suffix.

    Raises:
        CheckpointError: If there is no such file, or it is empty, truncated or no checkpoint.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        fault = "is not a regular file" if path.exists() else "does not exist"
        index = shards.index_path(path)
        wanted = f"its parts are in `{index}`; name that" if index.exists() else "expected a .pth or .safetensors file"
        raise CheckpointError(f"The checkpoint `{path}` {fault}, {wanted}.")
    if path.name.endswith(shards.INDEX_SUFFIX):
        return _read_shards(path)
    source = SourceFile(path)
    if not source.size:
        raise CheckpointError(f"The checkpoint `{path}` is empty; copy or download it again.")
    try:
        return _reader(source.read(0, min(_HEAD, source.size)))(source)
    except MalformedError as error:
        raise source.fault(one_line(error)) from error


def files(path: Path) -> list[Path]:
    """Name the files of a checkpoint: itself, and behind an index its shards.

    Raises:
        CheckpointError: If it ends like an index and is none.
        OSError: If an index cannot be read.
    """
    if not path.name.endswith(shards.INDEX_SUFFIX):
        return [path]
    return [path, *(path.with_name(name) for name in sorted(set(_index(path).files.values())))]


def _index(path: Path) -> shards.Index:
    try:
        return shards.Index.load(path)
    except MalformedError as error:
        raise CheckpointError(f"Cannot read the checkpoint `{path}`: {one_line(error)}.") from error


def _reader(head: bytes) -> Callable[[SourceFile], Checkpoint]:
    if head[:4] == b"PK\x03\x04":
        return partial(_read_torch, torch_zip.read)
    if head[8:9] == b"{":  # first: the length before it may begin with any byte, a pickle's too
        return _read_safetensors
    if head[:1] == b"\x80":
        return partial(_read_torch, torch_legacy.read)
    raise MalformedError(_other_format(head))


def _other_format(head: bytes) -> str:
    """Say what a file is that is no checkpoint, where that helps to get the right one."""
    if head[257:262] == b"ustar":
        return "it is a tar file, as torch wrote before 0.1.10; load it with torch.load and save it with torch.save"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS in place of the file; run `git lfs pull`"
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html") or head.lstrip()[:5].lower() == b"<html":
        return "it is a web page, and not the file to download"
    return "it is neither a torch zip file nor a safetensors file nor what torch wrote before 1.6"


def _read_safetensors(source: SourceFile) -> Checkpoint:
    found = safetensors_file.read(source)
    if not found.tensors:
        raise MalformedError("it holds no tensors")
    meta = _decoded(found.metadata)
    tensors, among = averages.split(found.tensors)
    return Checkpoint(source.path, "safetensors", _strip_module(tensors), {}, meta, (), (), averages=among)


def _read_shards(path: Path) -> Checkpoint:
    index = _index(path)
    held = {name: _shard(path.with_name(name)) for name in sorted(set(index.files.values()))}
    missing = sorted(key for key, name in index.files.items() if key not in held[name])
    unlisted = sorted(key for name in held for key in held[name] if index.files.get(key) != name)
    if missing or unlisted:
        fault = f"lack {listed(missing)}" if missing else f"hold {listed(unlisted)}, which it does not list"
        raise CheckpointError(f"Cannot read the checkpoint `{path}`: its shards {fault}.")
    tensors, among = averages.split({key: held[name][key] for key, name in index.files.items()})
    metadata = {name: text for name, text in index.metadata.items() if isinstance(text, str)}
    return Checkpoint(path, "safetensors", _strip_module(tensors), {}, _decoded(metadata), (), (), averages=among)


def _shard(path: Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise CheckpointError(f"The shard `{path}` does not exist, though the index names it.")
    source = SourceFile(path)
    try:
        return safetensors_file.read(source).tensors
    except MalformedError as error:
        raise source.fault(one_line(error)) from error


def _read_torch(read_format: Callable[[SourceFile], Unpickled], source: SourceFile) -> Checkpoint:
    found = read_format(source)
    state_dict, rest = _find_state_dict(found.content)
    state_dict, among = averages.split(state_dict)
    meta, left_out = _meta(rest.get("meta", {}))
    return Checkpoint(
        source.path,
        "pth",
        _strip_module(state_dict),
        rest,
        meta,
        found.foreign,
        tuple(sorted(str(key) for key in rest if key != "meta")),
        left_out,
        among,
    )


def _meta(found: Any) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """Return the plain part of `meta`, and what is not in it; a manifest may be as long as it has to be."""
    text = found.get(MANIFEST_KEY) if type(found) is dict else None
    if type(text) is not str or not text.isascii():
        copy = plain(found)
        if isinstance(copy.value, dict):
            return copy.value, copy.left_out
        return {}, (("", found.name if isinstance(found, Foreign) else type(found).__name__),)
    copy = plain({key: value for key, value in found.items() if key != MANIFEST_KEY})
    return {**copy.value, MANIFEST_KEY: text}, copy.left_out


def _find_state_dict(content: Any) -> tuple[dict[str, StoredTensor], dict[Any, Any]]:
    """Return the state dict, and what stands beside it at the top level."""
    if not isinstance(content, dict):
        raise MalformedError(f"its top level is {_kind(content)}, not a dict; save the model's state_dict() alone")
    for name in _WRAPPERS:
        if isinstance(content.get(name), dict):
            return _checked(content[name], f"`{name}`"), {key: content[key] for key in content if key != name}
    return _checked(content, "its top level"), {}


def _checked(state_dict: dict[Any, Any], where: str) -> dict[str, StoredTensor]:
    if not state_dict:
        raise MalformedError(f"{where} holds no tensors")
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, StoredTensor):
            what = f"`{key}` is {_kind(value)}" if isinstance(key, str) else f"its key {key!r} is not text"
            raise MalformedError(
                f"{where} is no state dict: {what}, not a plain tensor (looked for {', '.join(_WRAPPERS)} and a top "
                "level of tensors)"
            )
    return state_dict


def _kind(value: Any) -> str:
    if isinstance(value, Foreign) and value.name == "torch.Tensor":
        return "a tensor to be conjugated or negated, or of an unknown dtype"
    return f"made by {value.name}" if isinstance(value, Foreign) else f"of type {type(value).__name__}"


def _strip_module(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Take away the prefix that DistributedDataParallel leaves, if every key has it."""
    if all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return tensors


def _decoded(metadata: dict[str, str]) -> dict[str, Any]:
    """Undo the JSON in which a safetensors file keeps what is not text."""
    decoded: dict[str, Any] = dict(metadata)
    for name in CLASS_META:
        with suppress(KeyError, ValueError, RecursionError):
            decoded[name] = plain(json.loads(metadata[name])).value
    return decoded
