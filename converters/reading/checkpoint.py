"""Read checkpoints, `.pth` and `.safetensors`, without running anything that they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import CheckpointError, MalformedError, listed, one_line
from converters.formats import foreign as formats
from converters.formats import safetensors_file, shards, torch_legacy, torch_zip
from converters.formats.inert_pickle import Unpickled
from converters.formats.plain import plain
from converters.formats.stand_ins import Foreign
from converters.formats.stored import SourceFile, StoredTensor, check_all
from converters.reading import averages, wrapping
from converters.reading.wrapping import Found, Wrapping

if TYPE_CHECKING:
    from torch import Tensor

CLASS_META = ("dataset_meta", "CLASSES", "PALETTE")  # what inference needs beside the weights
MANIFEST_KEY = "ddq_manifest"  # where a converted file keeps its manifest: in the metadata, in `meta` of .pth
_HEAD = 512  # bytes that tell the format


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds; tensors are still in it, and everything that could act is made inert.

    Attributes:
        path: The file.
        format: `pth` or `safetensors`.
        state_dict: The model's tensors by key, without what they are wrapped in.
        content: What stands beside the state dict at the top level or within its wrapping, tensors as `StoredTensor`,
            unknown objects as `inert_pickle.Foreign`.
        meta: The plain part (text, numbers, lists, dicts) of the file's `meta`.
        foreign: Names of the globals in the pickle that were replaced by inert stand-ins.
        other_keys: Top-level keys beside the state dict and `meta`, such as `optimizer`.
        meta_left_out: What is not in `meta`: each place, dotted, and the kind of what stood there.
        wrapping: What the state dict was wrapped in.
        outside: Tensors that stand in the same dict, without the prefix that was asked for.
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
    wrapping: Wrapping = Wrapping()
    outside: Mapping[str, StoredTensor] = field(default_factory=dict)
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


def read(path: str | Path, key: str | None = None, prefix: str | None = None) -> Checkpoint:
    """Read what a checkpoint holds, but not yet its tensors; its format is told by its content, not by its suffix.

    Args:
        path: The file, or the index of one in several files.
        key: The key that the state dict stands under, dotted where keys are nested; None finds it.
        prefix: What the keys of the state dict begin with; None finds it.

    Raises:
        CheckpointError: If there is no such file, or it is empty, truncated or no checkpoint.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(_no_file(path))
    if path.name.endswith(shards.INDEX_SUFFIX):
        return _read_shards(path, key, prefix)
    source = SourceFile(path)
    if not source.size:
        raise CheckpointError(f"The checkpoint `{path}` is empty; copy or download it again.")
    try:
        held = _contents(source)
        return _checkpoint(source.path, held, wrapping.find(held.content, key, prefix))
    except MalformedError as error:
        raise source.fault(one_line(error)) from error


def _no_file(path: Path) -> str:
    index = shards.index_path(path)
    wanted = f"its parts are in `{index}`; name that" if index.exists() else "expected a .pth or .safetensors file"
    if path.is_symlink() and not path.exists():
        return f"The checkpoint `{path}` is a link to `{os.readlink(path)}`, which does not exist; get that file first."
    if not path.is_dir():
        fault = "is not a regular file" if path.exists() else "does not exist"
        return f"The checkpoint `{path}` {fault}, {wanted}."
    return f"The checkpoint `{path}` is not a regular file: {formats.folder(path) or f'it is a folder, {wanted}'}."


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


@dataclass(frozen=True)
class _Held:
    """The content of a file, the metadata of a safetensors, and which globals of a pickle were made inert."""

    format: str
    content: Any
    metadata: Mapping[str, Any] | None = None
    foreign: tuple[str, ...] = ()


def _contents(source: SourceFile) -> _Held:
    head = source.read(0, min(_HEAD, source.size))
    if head[:4] == b"PK\x03\x04":
        return _unpickled(torch_zip.read, source, lambda: formats.archive(source))
    # before pickles: the length in front may begin with any byte, theirs too; text would be a length beyond any file
    if head[8:9] == b"{" and (b"\0" in head[:8] or not head[:8].isascii()):
        return _of_safetensors(source)
    if head[:1] == b"\x80":
        return _unpickled(torch_legacy.read, source, lambda: formats.pickled(source.path))
    raise MalformedError(
        formats.file(source.path, head)
        or "it is neither a torch zip file nor a safetensors file nor what torch wrote before 1.6"
    )


def _of_safetensors(source: SourceFile) -> _Held:
    found = safetensors_file.read(source)
    if not found.tensors:
        raise MalformedError("it holds no tensors")
    return _Held("safetensors", found.tensors, _decoded(found.metadata))


def _unpickled(
    read_format: Callable[[SourceFile], Unpickled], source: SourceFile, explain: Callable[[], str | None]
) -> _Held:
    """Read what torch wrote; what is damaged, or is something else, may have a better explanation."""
    try:
        found = read_format(source)
    except MalformedError as error:
        raise MalformedError(explain() or str(error)) from error
    return _Held("pth", found.content, None, found.foreign)


def _checkpoint(path: Path, held: _Held, found: Found) -> Checkpoint:
    meta, left_out = (held.metadata, ()) if held.metadata is not None else _meta(found.beside.get("meta", {}))
    others = tuple(sorted(str(key) for key in found.beside if key != "meta"))
    _, among = averages.split({**found.tensors, **found.outside})
    state_dict = {key: tensor for key, tensor in found.tensors.items() if key not in among}
    outside = {key: tensor for key, tensor in found.outside.items() if key not in among}
    names = {key: name for key, name in found.wrapping.names.items() if key in state_dict or key in outside}
    return Checkpoint(
        path,
        held.format,
        state_dict,
        found.beside,
        meta,
        held.foreign,
        others,
        left_out,
        replace(found.wrapping, names=names, total=len(state_dict), outside=len(outside)),
        outside,
        among,
    )


def _read_shards(path: Path, key: str | None, prefix: str | None) -> Checkpoint:
    index = _index(path)
    held = {name: _shard(path.with_name(name)) for name in sorted(set(index.files.values()))}
    missing = sorted(name for name, file in index.files.items() if name not in held[file].content)
    unlisted = sorted(name for file in held for name in held[file].content if index.files.get(name) != file)
    if missing or unlisted:
        fault = f"lack {listed(missing)}" if missing else f"hold {listed(unlisted)}, which it does not list"
        raise CheckpointError(f"Cannot read the checkpoint `{path}`: its shards {fault}.")
    tensors = {name: held[file].content[name] for name, file in index.files.items()}
    metadata = _decoded({name: text for name, text in index.metadata.items() if isinstance(text, str)})
    foreign = tuple(sorted({name for shard in held.values() for name in shard.foreign}))
    formats_held = "/".join(sorted({shard.format for shard in held.values()}))
    try:
        found = wrapping.find(tensors, key, prefix)
    except MalformedError as error:
        raise CheckpointError(f"Cannot read the checkpoint `{path}`: {one_line(error)}.") from error
    return _checkpoint(path, _Held(formats_held, tensors, metadata, foreign), found)


def _shard(path: Path) -> _Held:
    """Read a file that an index names: a safetensors file, or as `transformers` wrote before, one of torch."""
    if not path.is_file():
        raise CheckpointError(f"The shard `{path}` does not exist, though the index names it.")
    source = SourceFile(path)
    try:
        held = _contents(source)
        if not isinstance(held.content, dict) or not all(isinstance(key, str) for key in held.content):
            raise MalformedError(f"its top level is {wrapping.kind(held.content)}, expected a dict of tensors by name")
        return held
    except MalformedError as error:
        raise source.fault(one_line(error)) from error


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


def _decoded(metadata: dict[str, str]) -> dict[str, Any]:
    """Undo the JSON in which a safetensors file keeps what is not text."""
    decoded: dict[str, Any] = dict(metadata)
    for name in CLASS_META:
        with suppress(KeyError, ValueError, RecursionError):
            decoded[name] = plain(json.loads(metadata[name])).value
    return decoded
