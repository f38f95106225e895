"""Read traces written by :mod:`legacy_adapters.recording.trace_writer`."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from converters.threads import BUFFERED, in_order
from legacy_adapters.recording.replay import TELLING, decision_key, sketch, sketch_key
from legacy_adapters.recording.trace_writer import (
    FORMAT_VERSION,
    INDEX_NAME,
    Key,
    Record,
    content_hash,
    seal_of,
    tensor_bytes,
)

from .fields import FieldError, check_fields
from .kinds import Kind
from .pieces import PIECE
from .shard import TORCH_DTYPES, Shard, TraceError

_PIECES_AT_ONCE = 4  # read from disk


@dataclass(frozen=True)
class StoredTensor:
    """The tensor of one record, read when it is needed; see :class:`parity.traces.pieces.Stored`.

    Attributes:
        trace: that it is of.
        record: that it is of.
    """

    trace: Trace = field(repr=False)
    record: Record

    @property
    def dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.record.dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.record.shape

    def pieces(self) -> Iterator[Tensor]:
        """Yield the tensor flat, in pieces of ``PIECE`` elements and a rest.

        Raises:
            TraceError: if its shard cannot be read or, in a checked trace and after the last piece, if it is not what
                was recorded.
        """
        block = torch.empty(_PIECES_AT_ONCE * PIECE, dtype=self.dtype)
        for count in self.trace.read_into(self.record, block):
            yield from block[:count].split(PIECE)


class View(Protocol):
    """A tensor that is made of stored ones."""

    def made(self, trace: Trace) -> Tensor:
        """Read those of ``trace``, checked, and return the tensor."""


class Recording(Protocol):
    """What one side recorded: a trace, or a golden file."""

    provenance: dict[str, Any]
    coverage: dict[str, Any]
    records: tuple[Record, ...]
    seal: str

    def values_of(self, phase: str, kind: str, name: str, call: int) -> dict[str, Tensor]:
        """Return the tensors of one value by slot; empty if they are not at hand."""

    def number(self, record: Record) -> float | None:
        """Return what a record of a single number holds; None if it is not at hand or not one number."""


@dataclass(frozen=True)
class Trace:
    """One side's records, in the order they were made; tensors are read when asked for.

    Attributes:
        folder: where it lies.
        provenance: code base, versions, files, device, threads, seed.
        coverage: leaf calls, modules never executed, parameters without gradient.
        records: in recording order.
        checked: whether every tensor that is read is checked against its digest.
        seal: digest of the index.
        views: what makes tensors of stored ones, by their digest; one that is stored, too, is read.
    """

    folder: Path
    provenance: dict[str, Any]
    coverage: dict[str, Any]
    records: tuple[Record, ...]
    checked: bool
    _shards: dict[str, str] = field(repr=False)
    _files: dict[str, Shard] = field(repr=False)
    seal: str = ""
    views: Mapping[str, View] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, folder: Path, checked: bool = False) -> Trace:
        """Read the index and check that the shards are whole and hold what it names; their tensors are not read.

        Raises:
            TraceError: if the folder holds no trace, one of another format version, or one that lacks a shard or a part
                of one.
        """
        path = folder / INDEX_NAME
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise TraceError(f"{folder} is not a trace: it has no {INDEX_NAME}.") from None
        except (OSError, ValueError) as error:
            raise TraceError(f"{path} cannot be read: {error}.") from error
        try:
            return cls._from_index(folder, path, index, checked)
        except FieldError as error:
            raise TraceError(f"{path} is malformed: {error}; record the trace again.") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise TraceError(f"{path} is malformed: {type(error).__name__} {error}.") from error

    @classmethod
    def _from_index(cls, folder: Path, path: Path, index: dict[str, Any], checked: bool) -> Trace:
        if index.get("format_version") != FORMAT_VERSION:
            raise TraceError(f"{path} has format version {index.get('format_version')}; expected {FORMAT_VERSION}.")
        check_fields(index["provenance"], index["coverage"], index["records"])
        records = tuple(Record(**{**record, "shape": tuple(record["shape"])}) for record in index["records"])
        shards = dict(index["shards"])
        files = {shard: _opened(folder, shard) for shard in sorted(set(shards.values()))}
        for record in records:
            if record.digest not in shards:
                raise TraceError(f"{path} names no shard for {record.kind} `{record.name}`.")
            span = files[shards[record.digest]].spans.get(record.digest)
            if span is None or (span.dtype, span.shape) != (record.dtype, record.shape):
                raise TraceError(
                    f"{folder} is damaged: {shards[record.digest]} has no {record.dtype}{list(record.shape)} of "
                    f"{record.kind} `{record.name}`."
                )
        seal = seal_of(index)
        if index.get("seal") != seal:
            raise TraceError(
                f"{path} has been changed since it was recorded: its digest is {seal[:16]}, its seal "
                f"{str(index.get('seal'))[:16]}; record the trace again."
            )
        return cls(folder, index["provenance"], index["coverage"], records, checked, shards, files, seal)

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

    def number(self, record: Record) -> float | None:
        """Return what a record of a single number holds; None for any other."""
        return self.tensor(record).item() if math.prod(record.shape) == 1 else None

    @cached_property
    def _by_value(self) -> dict[tuple[str, str, str, int], dict[str, Record]]:
        by_value: dict[tuple[str, str, str, int], dict[str, Record]] = {}
        for record in self.records:
            by_value.setdefault(record.key[:4], {})[record.slot] = record
        return by_value

    def stores(self, digest: str) -> bool:
        """Tell whether the tensor of this digest is stored; others are made of stored ones."""
        return digest in self._shards

    def shard_of(self, digest: str) -> str:
        """Return the name of the file that holds the tensor of this digest."""
        return self._shards[digest]

    def verify(self, kinds: Collection[str] | None = None) -> None:
        """Check every stored tensor against its digest, or those of records of the given ``kinds`` only.

        Raises:
            TraceError: naming the first record whose tensor is not what was recorded.
        """
        first = {r.digest: r for r in reversed(self.records) if kinds is None or r.kind in kinds}
        stored = sorted((r for r in first.values() if r.digest in self._shards), key=self._offset)
        for _ in in_order((partial(self.check, record) for record in stored), BUFFERED):
            pass

    def _offset(self, record: Record) -> tuple[str, int]:
        shard = self._shards[record.digest]
        return shard, self._files[shard].spans[record.digest].start

    def check(self, record: Record) -> None:
        """Check the stored tensor of ``record`` against its digest.

        Raises:
            TraceError: if it is not what was recorded, or cannot be read.
        """
        block = torch.empty(_PIECES_AT_ONCE * PIECE, dtype=TORCH_DTYPES[record.dtype])
        for _ in self.read_into(record, block, checked=True):
            pass

    def tensor(self, record: Record) -> Tensor:
        """Read the whole tensor of ``record``.

        Raises:
            TraceError: if its shard is damaged.
        """
        tensor = torch.empty(record.shape, dtype=TORCH_DTYPES[record.dtype])
        for _ in self.read_into(record, tensor.reshape(-1)):
            pass
        return tensor

    def checked_tensor(self, record: Record) -> Tensor:
        """Read the whole tensor of ``record`` and check it against its digest.

        Raises:
            TraceError: if it is not what was recorded, or cannot be read.
        """
        tensor = torch.empty(record.shape, dtype=TORCH_DTYPES[record.dtype])
        for _ in self.read_into(record, tensor.reshape(-1), checked=True):
            pass
        return tensor

    def stored(self, record: Record) -> StoredTensor:
        """Return the tensor of ``record``, to be read in pieces."""
        return StoredTensor(self, record)

    def read_into(self, record: Record, block: Tensor, checked: bool | None = None) -> Iterator[int]:
        """Read the tensor of ``record`` into ``block``, from its beginning again each time, until there is no more.

        Args:
            record: of this trace.
            block: flat, of the record's dtype.
            checked: as of the trace, unless given.

        Yields:
            how many elements of ``block`` were read.

        Raises:
            TraceError: if its shard cannot be read or, if checked, in the end, if it is not what was recorded.
        """
        if record.digest in self.views and record.digest not in self._shards:
            yield from _pieces_into(self.views[record.digest].made(self), block)
            return
        shard = self._files[self._shards[record.digest]]
        span = shard.spans[record.digest]
        buffer = tensor_bytes(block)
        content = content_hash(record.dtype, record.shape) if (self.checked if checked is None else checked) else None
        for start in range(0, span.nbytes, len(buffer) or 1):
            part = buffer[: span.nbytes - start]
            shard.read(span.start + start, part)
            if content is not None:
                content.update(part)
            yield len(part) // block.element_size()
        if content is not None and content.hexdigest() != record.digest:
            raise TraceError(f"{self.folder}: the tensor of {record.kind} `{record.name}` is not what was recorded.")


def _pieces_into(tensor: Tensor, block: Tensor) -> Iterator[int]:
    """Copy a tensor into a flat block, from its beginning again each time; yield how many elements were copied."""
    flat = tensor.reshape(-1)
    for start in range(0, len(flat), len(block) or 1):
        part = flat[start : start + len(block)]
        block[: len(part)].copy_(part)
        yield len(part)


def _opened(folder: Path, shard: str) -> Shard:
    path = folder / shard
    if not path.is_file():
        together = " of the trace beside it; move both traces of a run together" if Path(shard).name != shard else ""
        raise TraceError(f"{folder} lacks its shard {shard}{together}.")
    return Shard.open(path)


def decisions(trace: Trace) -> dict[str, Tensor]:
    """Return the discrete decisions and random draws of ``trace`` as one bundle, for replay.

    With each decision goes a sketch of what it rests on, by which it is found where the order is another.
    """
    bundle, places = {}, {}
    for record in trace.records:
        if record.kind == Kind.TAP:
            bundle[decision_key(record.phase, record.name, record.call, record.slot)] = trace.tensor(record)
            places[record.phase, record.name, record.call] = None
    for phase, name, call in places:
        basis = {slot: r for slot, r in trace.slots(phase, Kind.BASIS, name, call).items() if slot in TELLING}
        if basis:
            bundle[sketch_key(phase, name, call)] = sketch({slot: trace.tensor(r) for slot, r in basis.items()})
    return bundle
