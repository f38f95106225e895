"""The record to be diagnosed, and what both sides recorded around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from legacy_adapters.correspondence import Padding
from legacy_adapters.recording.trace_writer import Record

from ..comparing.compare import Comparison
from ..traces.kinds import FLOW, Kind
from ..traces.trace import Trace
from .kinds import Diagnosis, DiagnosisKind
from .measuring import MOST_ELEMENTS, numbers, off
from .sketches.restoring import Restored

#: Of what code computed before a record, this many results are tried as its parts.
MOST_PARTS = 24


@dataclass(frozen=True)
class Both:
    """What both sides recorded of one thing.

    Attributes:
        name: module path or parameter, on the new side.
        slot: of the record.
        kind: of the record.
        legacy: the legacy side's tensor.
        new: the new side's.
    """

    name: str
    slot: str
    kind: str
    legacy: Tensor
    new: Tensor


@dataclass(frozen=True)
class Target:
    """The sketch of what the legacy side has.

    Attributes:
        reference: the sketch, of float64.
        sketch: makes the sketch of a tensor.
        others: the other records of the legacy side and their sketches.
        sums: which numbers of the sketch are sums over elements, and their weights, [sums, *shape]; None if none are.
        samples: which numbers of the sketch are single elements, and which elements of the tensor laid out flat.
        floor: share of the size up to which a difference is rounding: far less in float64 than float32 could leave.
    """

    reference: np.ndarray
    sketch: Callable[[Tensor], np.ndarray]
    others: Callable[[], Iterable[tuple[Record, np.ndarray]]] = field(default=tuple, repr=False)
    sums: Callable[[], tuple[Tensor, Tensor] | None] = field(default=lambda: None, repr=False)
    samples: Callable[[], tuple[Tensor, Tensor] | None] = field(default=lambda: None, repr=False)
    floor: float = 1e-8

    def off(self, tensor: Tensor) -> float:
        """Return how far a tensor is from the legacy side's, as a share of its size."""
        return off(self.sketch(tensor), self.reference)


@dataclass(frozen=True)
class Scene:
    """One pair of records that differ, and what can be asked about them.

    Attributes:
        legacy: trace of the legacy side, under its names; or the one tensor of it that is at hand.
        new: trace of the new side.
        comparisons: of all pairs, in legacy recording order.
        comparison: the one to be diagnosed.
        classes: of both sides' modules by path, legacy and new.
        paddings: places of the batch that hold no image.
        target: the sketch of the legacy side's record, where nothing else is at hand; then the traces are those of the
            new side, in float64.
    """

    legacy: Trace | Restored
    new: Trace
    comparisons: Sequence[Comparison]
    comparison: Comparison
    classes: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
    paddings: Sequence[Padding] = ()
    target: Target | None = None

    @property
    def record(self) -> Record:
        return self.comparison.pair.new

    @property
    def is_small_enough(self) -> bool:
        return max(math.prod(one.shape) for one in (self.record, self.comparison.pair.legacy)) <= MOST_ELEMENTS

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """The two tensors, legacy and new; twice the new one where the legacy side has but a sketch."""
        pair = self.comparison.pair
        if self.target is not None:
            return (self.new.tensor(pair.new),) * 2
        return self.legacy.tensor(pair.legacy), self.new.tensor(pair.new)

    @cached_property
    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """The two tensors in float64."""
        one, two = self.tensors
        return numbers(one), numbers(two)

    @cached_property
    def gap(self) -> float:
        """The difference as a share of the new side's size."""
        return off(*self.values) if self.target is None else self.target.off(self.tensors[1])

    @property
    def is_gradient(self) -> bool:
        return self.record.kind in FLOW or self.record.kind == Kind.GRAD

    @cached_property
    def place(self) -> int:
        """Where the comparison stands among all."""
        pair = self.comparison.pair
        return next((i for i, one in enumerate(self.comparisons) if one.pair is pair), 0)

    def diagnosis(self, kind: DiagnosisKind, text: str, residual: float, rank: int) -> Diagnosis:
        """Return a statement about this record."""
        return Diagnosis(kind, text, residual, self.gap, rank, self.record.key)

    def both(self, comparison: Comparison) -> Both | None:
        """Read what both sides have of another record; None if one is too large."""
        pair = comparison.pair
        if max(math.prod(one.shape) for one in (pair.legacy, pair.new)) > MOST_ELEMENTS:
            return None
        new = pair.new
        return Both(new.name, new.slot, new.kind, self.legacy.tensor(pair.legacy), self.new.tensor(new))

    @cached_property
    def inputs(self) -> dict[str, Both]:
        """What the call was given of which the record is an output, by slot."""
        record = self.record
        wanted = (record.phase, Kind.MODULE_IN, record.name, record.call)
        found = (self.both(one) for one in self._by_call.get(wanted, ()))
        return {both.slot: both for both in found if both is not None}

    @cached_property
    def _by_call(self) -> dict[tuple, list[Comparison]]:
        by_call: dict[tuple, list[Comparison]] = {}
        for one in self.comparisons:
            by_call.setdefault(one.pair.new.key[:4], []).append(one)
        return by_call

    @cached_property
    def over_calls(self) -> tuple[np.ndarray, np.ndarray]:
        """The single numbers of this record in all calls whose inputs are equal and which differ, legacy and new."""
        own = self.record
        given = {Kind.MODULE_OUT: Kind.MODULE_IN, Kind.IN_GRAD: Kind.OUT_GRAD}.get(own.kind)
        values = []
        for one in self.comparisons:
            other = one.pair.new
            if (other.phase, other.kind, other.name, other.slot) != (own.phase, own.kind, own.name, own.slot):
                continue
            inputs = self._by_call.get((other.phase, given, other.name, other.call), ())
            if one.accepted or math.prod(other.shape) != 1 or not all(it.accepted for it in inputs):
                continue
            both = self.both(one)
            values.append((both.legacy.item(), both.new.item()))
        return tuple(np.array(values, dtype=float).reshape(-1, 2).T)

    @cached_property
    def weights(self) -> dict[str, Both]:
        """The parameters and buffers of the record's module itself, by their last name."""
        return self.weights_of(self.record.name)

    def weights_of(self, module: str) -> dict[str, Both]:
        """Return the parameters and buffers of a module and of what it holds, by their names inside it."""
        found = {}
        for one in self._parameters:
            name = one.pair.new.name
            if name.startswith(f"{module}.") and (both := self.both(one)) is not None:
                found[name[len(module) + 1 :]] = both
        return found

    @cached_property
    def _parameters(self) -> list[Comparison]:
        return [one for one in self.comparisons if one.pair.new.kind == Kind.PARAM]

    @cached_property
    def class_names(self) -> tuple[str, str]:
        """Class of the record's module on each side, without its package; empty if unknown."""
        pair = self.comparison.pair
        legacy = self.classes[0].get(pair.legacy.name, "")
        return legacy.rpartition(".")[2], self.classes[1].get(pair.new.name, "").rpartition(".")[2]

    def parts(self) -> Iterator[Both]:
        """Yield what was recorded shortly before in the code that made the record: what it was given, then the nearest.

        Of a module's output that is what the modules that it calls gave, and what it was given; of an input of a module
        what the code that calls it was given and got.
        """
        record = self.record
        owner = record.name if record.kind in (Kind.MODULE_OUT, Kind.METHOD_OUT) else record.scope
        seen: set[str] = set()
        given, others = [], []
        for index in range(self.place - 1, -1, -1):
            one = self.comparisons[index]
            other = one.pair.new
            if other.phase != record.phase:
                break
            is_part = other.scope == owner and other.kind in (Kind.MODULE_OUT, Kind.MODULE_IN)
            is_given = other.name == owner and other.kind == Kind.MODULE_IN
            if not (is_part or is_given) or not one.accepted or not other.is_float:
                continue
            if other.digest not in seen:
                seen.add(other.digest)
                (given if is_given else others).append(one)
            elif is_given and other.digest in seen:  # what is given is named before what it was handed on to
                given.append(one)
            if len(seen) >= MOST_PARTS:
                break
        yield from filter(None, map(self.both, (*given, *others)))
