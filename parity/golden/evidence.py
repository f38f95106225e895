"""Evidence for a derived tolerance from a golden file, and whether it can show an error at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from legacy_adapters.recording.trace_writer import Key, Record, content_digest

from ..comparing.derived import Finding, follows_gradients, graded, too_loose
from ..comparing.evidence import LegacySketch, Sample, relative_gap
from ..comparing.pairing import Pair
from ..traces.kinds import Kind
from ..traces.shard import TORCH_DTYPES
from ..traces.trace import Trace
from .golden import Golden, GoldenValues
from .sketches import Sketches, is_finite, marked, samples_of, sketched, sketched_places, sums_of


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
        shape = pair.legacy.shape
        return _sample(self.golden, pair.legacy, of(self.new, pair.new, key, shape), of(second, twin, key, shape))

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

    def sketch_of_legacy(self, pair: Pair, in_float64: bool = True) -> LegacySketch | None:
        key, shape = pair.legacy.key, pair.legacy.shape
        places = self.golden.places.get(key)

        def of(values: GoldenValues) -> Tensor:
            return values.reference if in_float64 else values.legacy

        if key not in self.golden.values:
            return None
        values = of(self.golden.values[key])
        return LegacySketch(
            values, is_finite(values, shape, places), lambda tensor: sketched(tensor.contiguous(), places),
            lambda: (
                (record, of(self.golden.values[record.key])) for record in self.golden.records
                if record.key in self.golden.values and record.key != key
            ),
            lambda: sums_of(shape, places), lambda: samples_of(shape, places),
        )  # fmt: skip

    def kept(self, pair: Pair) -> Tensor | None:
        record, dtype = pair.legacy, TORCH_DTYPES.get(pair.legacy.dtype)
        if record.digest in self._decided:
            return self._decided[record.digest]
        values = self.golden.values.get(record.key)
        if dtype is None or values is None or values.legacy.numel() != math.prod(record.shape):
            return None
        whole = values.legacy.reshape(record.shape).to(dtype)
        return whole if content_digest(whole) == record.digest else None

    @cached_property
    def _decided(self) -> dict[str, Tensor]:
        """What the legacy side decided and drew, by its digest."""
        return {content_digest(tensor): tensor for tensor in self.golden.decisions.values()}


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
