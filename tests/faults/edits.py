"""Edit a recorded trace: read it whole, change records, write it again; or damage its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from legacy_adapters.recording.trace_writer import Record, TraceWriter, tensor_bytes
from parity.traces.trace import Trace

Choice = Callable[[Record], bool]


@dataclass(frozen=True)
class Entry:
    """A record and its tensor."""

    record: Record
    tensor: Tensor


class Edit:
    """A trace to be changed.

    Args:
        trace: as recorded; stays as it is.

    Attributes:
        entries: its records, in order.
        provenance: as in the trace.
        coverage: as in the trace.
        damage: functions of the written folder, called in the end.
    """

    def __init__(self, trace: Trace) -> None:
        self.entries = [Entry(record, trace.tensor(record)) for record in trace.records]
        self.provenance = dict(trace.provenance)
        self.coverage: dict[str, Any] = dict(trace.coverage)
        self.damage: list[Callable[[Path], None]] = []

    def change(self, choice: Choice, change: Callable[[Tensor], Tensor]) -> None:
        """Put ``change(tensor)`` in place of the tensors of the chosen records."""
        for index in self._chosen(choice):
            entry = self.entries[index]
            self.entries[index] = replace(entry, tensor=change(entry.tensor))

    def relabel(self, choice: Choice, **fields: Any) -> None:
        """Change fields of the chosen records."""
        for index in self._chosen(choice):
            entry = self.entries[index]
            self.entries[index] = replace(entry, record=replace(entry.record, **fields))

    def drop(self, choice: Choice) -> None:
        """Leave the chosen records out."""
        chosen = set(self._chosen(choice))
        self.entries = [entry for index, entry in enumerate(self.entries) if index not in chosen]

    def repeat(self, choice: Choice, **fields: Any) -> None:
        """Write the chosen records a second time, with other fields if given."""
        again = [self.entries[index] for index in self._chosen(choice)]
        self.entries += [replace(entry, record=replace(entry.record, **fields)) for entry in again]

    def rotate(self, choice: Choice) -> None:
        """Give each chosen record the tensor of the next one, the last that of the first."""
        chosen = self._chosen(choice)
        tensors = [self.entries[index].tensor for index in chosen]
        for index, tensor in zip(chosen, tensors[1:] + tensors[:1]):
            self.entries[index] = replace(self.entries[index], tensor=tensor)

    def _chosen(self, choice: Choice) -> list[int]:
        """Return the places of the chosen records; there must be some, else the edit would do nothing."""
        found = [index for index, entry in enumerate(self.entries) if choice(entry.record)]
        if not found:
            raise LookupError("The trace has no such record.")
        return found

    def write(self, folder: Path) -> None:
        """Write the changed trace."""
        writer = TraceWriter(str(folder))
        for entry in self.entries:
            r = entry.record
            writer.add(r.phase, r.kind, r.name, r.call, r.slot, entry.tensor, r.scope)
        writer.finish(self.provenance, self.coverage)
        for damage in self.damage:
            damage(folder)

    def flip_byte(self, choice: Choice) -> None:
        """Change one byte of the first chosen record's tensor on disk."""
        content = bytes(tensor_bytes(self.entries[self._chosen(choice)[0]].tensor))

        def damage(folder: Path) -> None:
            path, start = next(_found(folder, content))
            data = bytearray(path.read_bytes())
            data[start + len(content) // 2] ^= 1
            path.write_bytes(data)

        self.damage.append(damage)


def _found(folder: Path, content: bytes) -> Iterator[tuple[Path, int]]:
    for path in shards(folder):
        start = path.read_bytes().find(content)
        if start >= 0:
            yield path, start


def shards(folder: Path) -> list[Path]:
    """Return the files that hold the tensors of a trace."""
    return sorted(folder.glob("*.safetensors"))


def chosen(kind: str, name: str, slot: str | None = None, call: int | None = None, phase: str | None = None) -> Choice:
    """Choose records by kind and name; None stands for any."""

    def choice(record: Record) -> bool:
        wanted = ((slot, record.slot), (call, record.call), (phase, record.phase))
        return (record.kind, record.name) == (kind, name) and all(one in (None, two) for one, two in wanted)

    return choice
