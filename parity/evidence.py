"""What a derived tolerance rests on: the legacy code's own rounding error, measured against itself in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from legacy_adapters.steps import phase_of, step_of
from legacy_adapters.trace_writer import Key, Record

from .pairing import Pair
from .trace import Trace

#: Gives the float64 values by which a record of a trace is judged: the whole tensor, or a sketch of it.
Values = Callable[[Trace, Record], Tensor]


def whole(trace: Trace, record: Record) -> Tensor:
    """Return the record's tensor as float64."""
    return trace.tensor(record).double()


@dataclass(frozen=True)
class Norms:
    """Size of a tensor or of an error: largest absolute value and root mean square, both over finite elements."""

    max: float
    rms: float

    def __or__(self, other: Norms) -> Norms:
        """Return the larger of each."""
        return Norms(max(self.max, other.max), max(self.rms, other.rms))


ZERO = Norms(0.0, 0.0)


def norms(tensor: Tensor) -> Norms:
    """Measure ``tensor``; zero if nothing in it is finite."""
    finite = tensor[tensor.isfinite()].double()
    if not finite.numel():
        return ZERO
    return Norms(finite.abs().max().item(), finite.square().mean().sqrt().item())


@dataclass(frozen=True)
class Sample:
    """The values by which one pair is judged, all float64 and of one shape.

    Attributes:
        legacy: what the legacy side computed in its own precision.
        reference: what it computes in float64 under the same decisions.
        spread: largest error of the legacy side against ``reference`` over several runs: with other threads and CPU
            kernels, with weights and images perturbed in their last bit.
        new: what the new side computed.
        new_reference: what it computes in float64 under the same decisions.
    """

    legacy: Tensor
    reference: Tensor
    spread: Norms
    new: Tensor
    new_reference: Tensor


class Evidence(Protocol):
    """Where samples come from: traces at hand, or a golden file."""

    new: Trace

    def sample(self, pair: Pair) -> Sample | None:
        """Return the values of a pair of float records; None if one has no twin in float64."""

    def decision(self, record: Record) -> dict[str, Tensor]:
        """Return the whole decision of the legacy side that ``record`` is a slot of."""

    def before(self, record: Record) -> Tensor | None:
        """Return what a training's step started from, for a legacy ``state`` that it left; None for other records."""


def spreads(runs: Iterable[Trace], reference: Trace, values: Values = whole) -> dict[Key, Norms]:
    """Return the largest error of ``runs`` against ``reference`` for every float record that both have.

    Each run is read once and then let go, so an iterable may make and remove traces on the way.
    """
    found: dict[Key, Norms] = {}
    for run in runs:
        for record in run.records:
            twin = reference.by_key.get(record.key)
            if record.is_float and twin is not None:
                error = norms(values(run, record) - values(reference, twin))
                found[record.key] = found.get(record.key, ZERO) | error
    return found


@dataclass(frozen=True)
class TraceEvidence:
    """Evidence from traces at hand.

    Attributes:
        legacy: of the legacy side.
        reference: of the legacy side in float64, under the decisions of ``legacy``.
        spread: of :func:`spreads`.
        new: of the new side.
        new_reference: of the new side in float64, under the same decisions.
    """

    legacy: Trace
    reference: Trace
    spread: Mapping[Key, Norms]
    new: Trace
    new_reference: Trace

    def sample(self, pair: Pair) -> Sample | None:
        reference = self.reference.by_key.get(pair.legacy.key)
        new_reference = self.new_reference.by_key.get(pair.new.key)
        if reference is None or new_reference is None:
            return None
        return Sample(
            legacy=whole(self.legacy, self.legacy.by_key[pair.legacy.key]),
            reference=whole(self.reference, reference),
            spread=self.spread.get(pair.legacy.key, ZERO),
            new=whole(self.new, pair.new),
            new_reference=whole(self.new_reference, new_reference),
        )

    def decision(self, record: Record) -> dict[str, Tensor]:
        return {r.slot: self.legacy.tensor(r) for r in self.legacy.records if r.key[:4] == record.key[:4]}

    def before(self, record: Record) -> Tensor | None:
        step = step_of(record.phase)
        if step is None or record.kind != "state":
            return None
        phase, kind = ("weights", "param") if step == 1 else (phase_of(step - 1), "state")
        start = self.legacy.by_key.get((phase, kind, record.name, record.call, record.slot))
        return None if start is None else whole(self.legacy, start)
