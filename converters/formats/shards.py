"""A checkpoint in several `.safetensors` files, with an index that says what is where, as Hugging Face has it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import MalformedError

INDEX_SUFFIX = ".index.json"
_LARGEST_INDEX = 100_000_000  # bytes, as much as the header of a safetensors file may have


@dataclass(frozen=True)
class Index:
    """What an index says: metadata, and for each key the name of the file, in the same folder, that holds it."""

    metadata: Mapping[str, Any]
    files: Mapping[str, str]

    def to_json(self) -> str:
        """Write the index as Hugging Face does."""
        return json.dumps({"metadata": self.metadata, "weight_map": self.files}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def load(cls, path: Path) -> Index:
        """Read an index.

        Raises:
            MalformedError: If it is none, or names a file outside of its folder.
            OSError: If it cannot be read.
        """
        if path.stat().st_size > _LARGEST_INDEX:
            raise MalformedError("it is too large for an index of shards")
        try:
            data = json.loads(path.read_bytes())
            files, metadata = data["weight_map"], data.get("metadata", {})
            names = set(files.values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MalformedError(f"it is not an index of shards ({type(error).__name__})") from error
        bad = sorted(str(name) for name in names if not isinstance(name, str) or Path(name).name != name)
        if bad or not files or not isinstance(metadata, dict):
            fault = f"names `{bad[0]}`, which is not a file name" if bad else "lists no tensors"
            raise MalformedError(f"it is not an index of shards: it {fault}")
        return cls(metadata, files)


def split(sizes: Mapping[str, int], largest: int) -> list[list[str]]:
    """Distribute keys, in their order, over files of at most `largest` bytes; a larger tensor has one for itself."""
    files: list[list[str]] = []
    room = 0
    for key, size in sizes.items():
        if not files or size > room:
            files.append([])
            room = largest
        files[-1].append(key)
        room -= size
    return files


def shard_path(destination: Path, number: int, total: int) -> Path:
    """Name a shard: `new-00001-of-00003.safetensors` is number 1 of 3 of `new.safetensors`."""
    return destination.with_name(f"{destination.stem}-{number:05d}-of-{total:05d}{destination.suffix}")


def index_path(destination: Path) -> Path:
    """Name the index of a destination in several files."""
    return destination.with_name(destination.name + INDEX_SUFFIX)


def is_shard(destination: Path, name: str) -> bool:
    """Tell whether a shard of `destination` may have this name, of whatever total."""
    pattern = re.escape(destination.stem) + r"-\d{5}-of-\d{5}" + re.escape(destination.suffix)
    return re.fullmatch(pattern, name) is not None
