"""Read traces written by :mod:`legacy_adapters.trace_writer`."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from torch import Tensor

from legacy_adapters.taps import decision_key
from legacy_adapters.trace_writer import FORMAT_VERSION, INDEX_NAME, Key, Record, content_digest

#: What ``coverage`` of an index must hold.
_COVERAGE = {"leaf_calls": list, "never_executed": list, "without_gradient": list, "classes": dict}


class TraceError(Exception):
    """A folder is not a complete trace; the message is one line."""


class Recording(Protocol):
    """What one side recorded: a trace, or a golden file."""

    provenance: dict[str, Any]
    coverage: dict[str, Any]
    records: tuple[Record, ...]

    def values_of(self, phase: str, kind: str, name: str, call: int) -> dict[str, Tensor]:
        """Return the tensors of one value by slot; empty if they are not at hand."""


@dataclass(frozen=True)
class Trace:
    """One side's records, in the order they were made; tensors are read when asked for.

    Attributes:
        folder: where it lies.
        provenance: code base, versions, files, device, threads, seed.
        coverage: leaf calls, modules never executed, parameters without gradient.
        records: in recording order.
    """

    folder: Path
    provenance: dict[str, Any]
    coverage: dict[str, Any]
    records: tuple[Record, ...]
    _shards: dict[str, str] = field(repr=False)
    _open: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, folder: Path) -> Trace:
        """Read the index and check that the shards are there.

        Raises:
            TraceError: if the folder holds no trace, one of another format version, or one that lacks a shard.
        """
        path = folder / INDEX_NAME
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise TraceError(f"{folder} is not a trace: it has no {INDEX_NAME}.") from None
        except (OSError, ValueError) as error:
            raise TraceError(f"{path} cannot be read: {error}.") from error
        try:
            return cls._from_index(folder, path, index)
        except (KeyError, TypeError, AttributeError) as error:
            raise TraceError(f"{path} is malformed: {type(error).__name__} {error}.") from error

    @classmethod
    def _from_index(cls, folder: Path, path: Path, index: dict[str, Any]) -> Trace:
        if index.get("format_version") != FORMAT_VERSION:
            raise TraceError(f"{path} has format version {index.get('format_version')}; expected {FORMAT_VERSION}.")
        records = tuple(Record(**{**record, "shape": tuple(record["shape"])}) for record in index["records"])
        coverage = index["coverage"]
        for name, kind in _COVERAGE.items():
            if not isinstance(coverage[name], kind):
                raise TypeError(f"coverage.{name}")
        trace = cls(folder, dict(index["provenance"]), coverage, records, dict(index["shards"]))
        for shard in sorted(set(trace._shards.values())):
            trace._opened(shard)
        missing = [record for record in records if record.digest not in trace._shards]
        if missing:
            raise TraceError(f"{path} names no shard for {missing[0].kind} `{missing[0].name}`.")
        return trace

    @cached_property
    def by_key(self) -> dict[Key, Record]:
        """The records by what identifies them."""
        return {record.key: record for record in self.records}

    def slots(self, phase: str, kind: str, name: str, call: int) -> dict[str, Record]:
        """Return the records of one value by slot, e.g. the ``rows`` and ``cols`` of a matching."""
        return self._by_value.get((phase, kind, name, call), {})

    def values_of(self, phase: str, kind: str, name: str, call: int) -> dict[str, Tensor]:
        """Return the tensors of one value by slot; empty if it was not recorded."""
        return {slot: self.tensor(record) for slot, record in self.slots(phase, kind, name, call).items()}

    @cached_property
    def _by_value(self) -> dict[tuple[str, str, str, int], dict[str, Record]]:
        found: dict[tuple[str, str, str, int], dict[str, Record]] = {}
        for record in self.records:
            found.setdefault(record.key[:4], {})[record.slot] = record
        return found

    def shard_of(self, digest: str) -> str:
        """Return the name of the file that holds the tensor of this digest."""
        return self._shards[digest]

    def verify(self, kinds: Collection[str] | None = None) -> None:
        """Check every stored tensor against its digest, or those of records of the given ``kinds`` only.

        Raises:
            TraceError: naming the first record whose tensor is not what was recorded.
        """
        checked = set()
        for record in self.records:
            if kinds is not None and record.kind not in kinds:
                continue
            if record.digest not in checked and content_digest(self.tensor(record)) != record.digest:
                raise TraceError(
                    f"{self.folder}: the tensor of {record.kind} `{record.name}` is not what was recorded."
                )
            checked.add(record.digest)

    def tensor(self, record: Record) -> Tensor:
        """Read the tensor of ``record``.

        Raises:
            TraceError: if its shard is damaged.
        """
        try:
            return self._opened(self._shards[record.digest]).get_tensor(record.digest)
        except SafetensorError as error:
            raise TraceError(f"{self.folder} is damaged: {error}.") from error

    def _opened(self, shard: str) -> Any:
        """Return the shard's reader; opening checks its header and size."""
        path = self.folder / shard
        if not path.is_file():
            raise TraceError(f"{self.folder} lacks its shard {shard}.")
        try:
            if shard not in self._open:
                self._open[shard] = safe_open(str(path), framework="pt")
        except (OSError, SafetensorError) as error:
            raise TraceError(f"{path} is damaged: {error}.") from error
        return self._open[shard]


def decisions(trace: Trace) -> dict[str, Tensor]:
    """Return the discrete decisions and random draws of ``trace`` as one bundle, for replay."""
    return {
        decision_key(record.phase, record.name, record.call, record.slot): trace.tensor(record).clone()
        for record in trace.records
        if record.kind == "tap"
    }
