"""Evidence for a derived tolerance from a golden file, and whether it can show an error at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from legacy_adapters.recording.trace_writer import Key, Record

from ..comparing.derived import Finding, follows_gradients, graded, too_loose
from ..comparing.evidence import Sample, relative_gap
from ..comparing.pairing import Pair
from ..traces.kinds import Kind
from ..traces.trace import Trace
from .golden import Golden
from .sketches import Sketches, marked, sketched, sketched_places


@dataclass(frozen=True)
class GoldenEvidence:
    """Evidence for a derived tolerance, from a golden file and two runs of the new side."""

    golden: Golden
    new: Trace
    new_reference: Trace

    @cached_property
    def _sketches(self) -> Sketches:
        return Sketches(self.golden.places)

    def sample(self, pair: Pair) -> Sample | None:
        key = pair.legacy.key
        new = pair.new if pair.new.kind == Kind.INIT else None
        twin = self.new_reference.by_key.get(pair.new.key, new)
        if key not in self.golden.values or twin is None:
            return None
        of, second = self._sketches.of, self.new if twin is new else self.new_reference
        return _sample(self.golden, pair.legacy, of(self.new, pair.new, key), of(second, twin, key))

    def likeness(self, legacy: Record, new: Record, order: Sequence[int] = ()) -> float:
        values = self.golden.values.get(legacy.key)
        if values is None:
            return 0.0
        if order:
            turned = sketched(self.new.tensor(new).permute(*order), self.golden.places.get(legacy.key))
            return relative_gap(values.legacy, turned)
        return relative_gap(values.legacy, self._sketches.of(self.new, new, legacy.key))

    def decision(self, record: Record) -> dict[str, Tensor]:
        return self.golden.values_of(*record.key[:4])

    def gradient(self, pair: Pair) -> Sample | None:
        return None  # a golden file holds no training

    def before(self, record: Record) -> Tensor | None:
        return None  # a golden file holds no training

    def reference_sketch(self, pair: Pair) -> Tensor | None:
        values = self.golden.values.get(pair.legacy.key)
        return None if values is None else values.reference

    def sketch_like(self, pair: Pair, tensor: Tensor) -> Tensor:
        return sketched(tensor.contiguous(), self.golden.places.get(pair.legacy.key))

    def other_sketches(self, pair: Pair) -> Iterator[tuple[Record, Tensor]]:
        for record in self.golden.records:
            if record.key in self.golden.values and record.key != pair.legacy.key:
                yield record, self.golden.values[record.key].reference


def loose_records(golden: Golden) -> list[Record]:
    """Return the records whose rounding could hide an error, where the new side's bits are not the legacy side's."""
    phases: dict[str, dict[Key, Finding]] = {}
    for record in golden.records:
        if (values := golden.values.get(record.key)) is not None:
            own = _sample(golden, record, values.legacy, values.reference)
            phases.setdefault(record.phase, {})[record.key] = graded(own, follows_gradients(record))
    wide = {id(finding) for finding in too_loose({phase: [*ones.values()] for phase, ones in phases.items()})}
    return [record for record in golden.records if id(phases.get(record.phase, {}).get(record.key)) in wide]


def _sample(golden: Golden, record: Record, new: Tensor, new_reference: Tensor) -> Sample:
    values, places = golden.values[record.key], sketched_places(golden.places.get(record.key), record.shape)
    new, new_reference = marked(new, values.legacy, places), marked(new_reference, values.reference, places)
    return Sample(values.legacy, values.reference, values.spread, new, new_reference, sketched=True, places=places)
