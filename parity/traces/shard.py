"""Read one safetensors file piece by piece.

Its bytes are read into buffers that are used again, not mapped: mapped pages would count as memory of this process, and
a file that shrinks would kill it instead of raising an error.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from legacy_adapters.recording.trace_writer import DTYPES

TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


class TraceError(Exception):
    """A folder is not a complete trace; the message is one line."""


@dataclass(frozen=True)
class Span:
    """The bytes of a shard that hold a tensor.

    Attributes:
        dtype: safetensors name.
        shape: of the tensor.
        start: first byte, from the start of the file.
        nbytes: its size.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True)
class Shard:
    """One file of tensors.

    Attributes:
        path: of the file.
        spans: of its tensors, by name.
    """

    path: Path
    spans: dict[str, Span]

    @classmethod
    def open(cls, path: Path) -> Shard:
        """Read the header and check it against the size of the file.

        Raises:
            TraceError: if the file is damaged or no safetensors file.
        """
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = 8 + int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(start - 8)) if start <= size else None
            spans = {name: _span(entry, start) for name, entry in header.items() if name != "__metadata__"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise TraceError(f"{path} is damaged: its header cannot be read ({type(error).__name__}).") from error
        end = max((span.start + span.nbytes for span in spans.values()), default=start)
        if end != size:
            raise TraceError(f"{path} is damaged: it has {size} bytes; expected {end}.")
        return cls(path, spans)

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes of the file from ``offset`` on.

        Each call opens the file for itself: threads that shared one could see it closed, or another in its place.

        Raises:
            TraceError: if they cannot be read.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(offset)
                while buffer:
                    count = file.readinto(buffer)
                    if not count:
                        raise TraceError(f"{self.path} is damaged: it ends before byte {offset + len(buffer)}.")
                    offset, buffer = offset + count, buffer[count:]
        except OSError as error:
            raise TraceError(f"{self.path} cannot be read: {error}.") from error


def _span(entry: dict, start: int) -> Span:
    first, last = entry["data_offsets"]
    shape = tuple(entry["shape"])
    span = Span(entry["dtype"], shape, start + first, last - first)
    if not 0 <= first <= last or span.nbytes != math.prod(shape) * itemsize(span.dtype):
        raise ValueError("data_offsets")
    return span


def itemsize(dtype: str) -> int:
    """Return the bytes of an element; ``dtype`` by its safetensors name."""
    return torch.empty(0, dtype=TORCH_DTYPES[dtype]).element_size()
