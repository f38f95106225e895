"""Write a trace: records in ``index.json``, tensors in content-addressed safetensors shards.

A tensor is written once, under the SHA-256 of its dtype, shape and bytes; records refer to it by that digest. So an
input that equals an earlier output costs no space, and two equal records of two traces are known to be equal
without reading them. Tensors go to disk at the moment they are recorded, hence no clone is kept and a later
in-place operation of the model cannot change a record; peak memory is one tensor. A large one is written and hashed at
the same time, by two threads; if it is the tensor that was recorded before and its fingerprint is still the same,
neither is done.

A trace may be written beside another one, of the other side: what that one holds is not stored again, the index names
its shard. So two sides that compute the same take the space of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Dict, List, Optional, Tuple

import torch

from ..job import write_json
from .fingerprint import PARTS, Fingerprints

FORMAT_VERSION = 2
INDEX_NAME = "index.json"
_HEADER_BYTES = 1 << 18  # room for the JSON header of one shard, padded with spaces as safetensors allows
_MAX_TENSORS = 1000
_MAX_SHARD_BYTES = 1 << 30
_LARGE = 1 << 20  # bytes from which a second thread pays

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


#: phase, kind, name, call, slot: what identifies a record within one side.
Key = Tuple[str, str, str, int, str]


@dataclass(frozen=True)
class Record:
    """One recorded value.

    Attributes:
        phase: ``predict`` (eval mode) or ``train``; ``weights`` for what was loaded; ``step 1``, ``step 2`` ... for the
            steps of a training.
        kind: ``module_in``, ``module_out``, ``tap``, ``basis`` (of a tap's decision), ``loss``, ``grad``, ``param`` or
            ``state`` (parameters and buffers after the training step's forward and backward); of a training's steps
            also ``clip`` (what gradients are clipped by), ``setting`` (of a parameter's group) and ``optim_state``.
        name: module path, tap name, loss term or parameter name.
        call: how often this name was recorded before in this phase, from 0.
        slot: place inside the value: argument name, tuple index, dict key, dotted; ``""`` for a plain tensor.
        dtype: safetensors name, e.g. ``F32``.
        shape: of the tensor.
        digest: content address of the tensor.
        scope: module whose code was running: the caller of a module, the place of a tap; ``""`` for the model.
    """

    phase: str
    kind: str
    name: str
    call: int
    slot: str
    dtype: str
    shape: Tuple[int, ...]
    digest: str
    scope: str = ""

    @property
    def key(self) -> Key:
        return self.phase, self.kind, self.name, self.call, self.slot

    @property
    def is_float(self) -> bool:
        return "F" in self.dtype


class _Shard:
    """One safetensors file, written front to back; the header is filled in when it is closed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.entries: Dict[str, dict] = {}
        self.size = 0
        self._file: BinaryIO = open(path, "wb")
        self._file.write(b"\0" * (8 + _HEADER_BYTES))

    @property
    def full(self) -> bool:
        return len(self.entries) >= _MAX_TENSORS or self.size >= _MAX_SHARD_BYTES

    def write(self, data: memoryview) -> int:
        """Append the bytes of a tensor and return where they begin; :meth:`enter` or :meth:`drop` must follow."""
        start = self.size
        self._file.write(data)
        self.size += data.nbytes
        return start

    def enter(self, digest: str, dtype: str, shape: Tuple[int, ...], start: int) -> None:
        """Name the tensor that was written last."""
        self.entries[digest] = dict(dtype=dtype, shape=list(shape), data_offsets=[start, self.size])

    def drop(self, start: int) -> None:
        """Take back the tensor that was written last."""
        self._file.seek(8 + _HEADER_BYTES + start)
        self._file.truncate()
        self.size = start

    def close(self) -> None:
        header = json.dumps(self.entries, separators=(",", ":")).encode().ljust(_HEADER_BYTES)
        self._file.seek(0)
        self._file.write(_HEADER_BYTES.to_bytes(8, "little") + header)
        self._file.close()


@dataclass(frozen=True)
class _Known:
    """A large tensor that was recorded; ``tensor`` refers to it as long as it lives."""

    tensor: "weakref.ref[torch.Tensor]"
    fingerprint: Tuple[bytes, ...]
    digest: str


class UnsupportedTensorError(TypeError):
    """A tensor of a dtype or layout that a trace cannot keep; the message is one line."""


class TraceWriter:
    """Write one trace folder; ``index.json`` appears only when :meth:`finish` is called.

    Args:
        folder: created; must not exist or be empty.
        beside: folder of a complete trace, which must stay where it is as seen from ``folder``; None for none.
    """

    def __init__(self, folder: str, beside: Optional[str] = None) -> None:
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self._beside = {} if beside is None else _shards_beside(folder, beside)
        self.records: List[Record] = []
        self._added: Counter = Counter()
        self._shards: List[str] = []
        self._shard: Optional[_Shard] = None
        self._where: Dict[str, str] = {}
        self._helper = ThreadPoolExecutor(1)
        self._fingerprints = Fingerprints()
        self._last: Dict[tuple, _Known] = {}

    def add(
        self, phase: str, kind: str, name: str, call: int, slot: str, tensor: torch.Tensor, scope: str = ""
    ) -> None:
        """Record ``tensor`` as it is now; arguments as in :class:`Record`.

        Raises:
            UnsupportedTensorError: if a trace cannot keep its dtype or layout.
        """
        value = tensor.detach()
        if value.dtype not in DTYPES or value.layout != torch.strided:
            raise UnsupportedTensorError(
                "{} `{}`{} is a tensor of {}, {}; a trace keeps strided tensors of {}: pass it on as those "
                "(torch.view_as_real, to_dense).".format(
                    kind, name, " " + slot if slot else "", value.dtype, value.layout, ", ".join(DTYPES.values())
                )
            )
        dtype, shape = DTYPES[value.dtype], tuple(value.shape)
        data = tensor_bytes(value)
        digest = self._stored(dtype, shape, data) if data.nbytes < _LARGE else self._stored_large(tensor, data)
        self.records.append(Record(phase, kind, name, call, slot, dtype, shape, digest, scope))
        self._added[phase, kind] += 1

    def _stored(self, dtype: str, shape: Tuple[int, ...], data: memoryview) -> str:
        """Store what is not there yet and return its digest."""
        digest = _digest(dtype, shape, data)
        if not self._holds(digest):
            shard = self._current_shard()
            shard.enter(digest, dtype, shape, shard.write(data))
            self._where[digest] = os.path.basename(shard.path)
        return digest

    def _holds(self, digest: str) -> bool:
        """Tell whether a tensor is stored, here or in the trace beside; the index will say where."""
        if digest not in self._where and digest in self._beside:
            self._where[digest] = self._beside[digest]
        return digest in self._where

    def _stored_large(self, tensor: torch.Tensor, data: memoryview) -> str:
        dtype, shape = DTYPES[tensor.dtype], tuple(tensor.shape)
        place = tensor.data_ptr(), tensor.stride(), dtype, shape
        known = self._last.get(place)
        if known is None or known.tensor() is None or known.fingerprint != self._fingerprint(data):
            known = self._last[place] = self._written(tensor, dtype, shape, data)
        return known.digest

    def _fingerprint(self, data: memoryview) -> Tuple[bytes, ...]:
        others = [self._helper.submit(self._fingerprints.part, number, data) for number in PARTS[1:]]
        return (self._fingerprints.part(PARTS[0], data), *(other.result() for other in others))

    def _written(self, tensor: torch.Tensor, dtype: str, shape: Tuple[int, ...], data: memoryview) -> "_Known":
        """Write a tensor and meanwhile learn what it is; if it is there already, take it back.

        Beside another trace most are there already: then nothing is written before it is known.
        """

        def learn() -> _Known:
            fingerprint = tuple(self._fingerprints.part(number, data) for number in PARTS)
            return _Known(weakref.ref(tensor), fingerprint, _digest(dtype, shape, data))

        learning = self._helper.submit(learn)
        if self._beside and self._holds(learning.result().digest):
            return learning.result()
        shard = self._current_shard()
        start = shard.size
        try:
            try:
                shard.write(data)
            finally:
                known = learning.result()  # ``data`` is the model's and must not be read later
        except BaseException:
            shard.drop(start)  # what was recorded until then can still be read
            raise
        if self._holds(known.digest):
            shard.drop(start)
        else:
            shard.enter(known.digest, dtype, shape, start)
            self._where[known.digest] = os.path.basename(shard.path)
        return known

    def _current_shard(self) -> _Shard:
        if self._shard is not None and self._shard.full:
            self._shard.close()
            self._shard = None
        if self._shard is None:
            self._shard = _Shard(os.path.join(self.folder, "trace-{:05d}.safetensors".format(len(self._shards) + 1)))
            self._shards.append(self._shard.path)
        return self._shard

    def abandon(self) -> None:
        """Let go of files and threads; the folder stays without an index."""
        self._helper.shutdown()
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def finish(self, provenance: dict, coverage: dict) -> None:
        """Close the shards and publish the index, sealed.

        ``coverage`` gets the number of records of each phase and kind, unless it has these already: a trace that is
        written again keeps what the run counted.
        """
        self.abandon()
        counts = [dict(phase=p, kind=k, count=count) for (p, k), count in sorted(self._added.items())]
        index = dict(
            format_version=FORMAT_VERSION,
            provenance=provenance,
            coverage=dict(dict(records=counts), **coverage),
            shards=self._where,
            records=[dict(vars(record)) for record in self.records],
        )
        write_json(os.path.join(self.folder, INDEX_NAME), sealed(index))


def _shards_beside(folder: str, beside: str) -> Dict[str, str]:
    """Return where each tensor of a complete trace lies, as seen from ``folder``."""
    with open(os.path.join(beside, INDEX_NAME), encoding="utf-8") as file:
        shards = json.load(file)["shards"]
    return {digest: os.path.relpath(os.path.join(beside, shard), folder) for digest, shard in shards.items()}


def sealed(index: dict) -> dict:
    """Return ``index`` with a ``seal``: a SHA-256 over all else in it, as JSON has it."""
    return dict(index, seal=seal_of(json.loads(json.dumps(index))))


def seal_of(index: dict) -> str:
    """Return the seal of an index that was read from JSON, whatever it says of its seal itself."""
    unsealed = {name: value for name, value in index.items() if name != "seal"}
    plain = json.dumps(unsealed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def content_digest(tensor: torch.Tensor) -> str:
    """Return the content address of ``tensor``: SHA-256 over dtype, shape and bytes."""
    return _digest(DTYPES[tensor.dtype], tuple(tensor.shape), tensor_bytes(tensor))


def zeros_digest(dtype: str, shape: Tuple[int, ...]) -> str:
    """Return the content address of an all-zero tensor; ``dtype`` by its safetensors name."""
    by_name = {name: torch_dtype for torch_dtype, name in DTYPES.items()}
    return content_digest(torch.zeros(shape, dtype=by_name[dtype]))


def content_hash(dtype: str, shape: Tuple[int, ...]) -> "hashlib._Hash":
    """Return the hash whose hex digest, once it was fed a tensor's bytes, is the tensor's content address."""
    return hashlib.sha256(repr((dtype, shape)).encode() + b"\0")


def _digest(dtype: str, shape: Tuple[int, ...], data: memoryview) -> str:
    content = content_hash(dtype, shape)
    content.update(data)
    return content.hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of ``tensor`` in row-major order, copied to the CPU where needed."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    flat = flat.as_strided(flat.shape, (1,))  # one element counts as contiguous whatever its stride
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")
