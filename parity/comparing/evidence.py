"""What a derived tolerance rests on: the legacy code's own rounding error, measured against itself in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from converters.threads import BUFFERED, in_order
from legacy_adapters.correspondence import Padding
from legacy_adapters.recording.trace_writer import Key, Record
from legacy_adapters.training.phases import on_rank, phase_of, rank_of, step_of

from ..traces.kinds import Kind
from ..traces.pieces import Numbers, doubles, together
from ..traces.trace import Recording, StoredTensor, Trace, TraceError
from .padding import Images, Part, PlacesOf
from .pairing import Pair
from .twins import Likeness

#: Gives the values by which a record of a trace is judged: the whole tensor, or a sketch of it.
ValuesOf = Callable[[Trace, Record], Numbers]


def whole(trace: Trace, record: Record, shape: tuple[int, ...] | None = None) -> Numbers:
    """Return the record's tensor, to be read in pieces; in ``shape`` where that is given."""
    return trace.stored(record) if shape in (None, record.shape) else trace.tensor(record).reshape(shape)


def is_of_one(*shapes: tuple[int, ...]) -> bool:
    """Tell whether tensors of these shapes are of one form, or of one number each: [] and [1]."""
    return len(set(shapes)) == 1 or {*shapes} == {(), (1,)}


@dataclass(frozen=True)
class Norms:
    """Size of a tensor or of an error: largest absolute value and root mean square, both over finite elements.

    Attributes:
        max: the largest.
        rms: the root mean square.
        images: the same of the places with images, where some are padding; None where all count alike.
    """

    max: float
    rms: float
    images: Norms | None = None

    def __or__(self, other: Norms) -> Norms:
        """Return the larger of each."""
        images = self.images if other.images is None else other.images | (self.images or ZERO)
        return Norms(max(self.max, other.max), max(self.rms, other.rms), images)


ZERO = Norms(0.0, 0.0)


class Size:
    """Norms of a tensor that comes in pieces."""

    def __init__(self) -> None:
        self._largest = 0.0
        self._squares: list[float] = []
        self._finite = 0

    def add(self, piece: np.ndarray) -> None:
        """Take in a float64 piece."""
        finite = np.isfinite(piece)
        if not finite.all():
            piece = piece[finite]
        if piece.size:
            with np.errstate(over="ignore"):
                self._squares.append(float(np.square(piece).sum()))
            self._largest = max(self._largest, float(np.abs(piece).max()))
            self._finite += piece.size

    def norms(self) -> Norms:
        """Return the norms of all pieces so far; zero if nothing in them is finite."""
        return Norms(self._largest, math.sqrt(math.fsum(self._squares) / self._finite)) if self._finite else ZERO


def norms(numbers: Numbers) -> Norms:
    """Measure a tensor; zero if nothing in it is finite."""
    size = Size()
    for (piece,) in together(numbers):
        size.add(doubles(piece))
    return size.norms()


def distance(one: Numbers, two: Numbers) -> Norms:
    """Measure the difference of two tensors of one shape, where it is finite."""
    size = Size()
    for pair in together(one, two):
        size.add(gap(*map(doubles, pair)))
    return size.norms()


def gap(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the difference of two float64 pieces."""
    with np.errstate(invalid="ignore", over="ignore"):
        return one - two


@dataclass(frozen=True)
class Sample:
    """The values by which one pair is judged, all of one shape and taken in float64.

    Attributes:
        legacy: what the legacy side computed in its own precision.
        reference: what it computes in float64 under the same decisions.
        spread: largest error of the legacy side against ``reference`` over several runs: with other threads and CPU
            kernels, with weights and images perturbed in their last bit.
        new: what the new side computed.
        new_reference: what it computes in float64 under the same decisions.
        sketched: these are sketches of the tensors.
        amp: what autocast computed in on both sides, as in :class:`.settings.Task`; the references have none.
        places: where there are images, as :meth:`.padding.Images.places` has it; None where all places count alike.
    """

    legacy: Numbers
    reference: Numbers
    spread: Norms
    new: Numbers
    new_reference: Numbers
    sketched: bool = False
    amp: str | None = None
    places: Tensor | None = None

    @property
    def of_images(self) -> Sample | None:
        """The values at the places with images alone; None where all places count alike."""
        if self.places is None or self.spread.images is None:
            return None
        names = ("legacy", "reference", "new", "new_reference")
        parts = {name: Part(getattr(self, name), self.places) for name in names}
        return replace(self, spread=self.spread.images, places=None, **parts)


class Evidence(Protocol):
    """Where samples come from: traces at hand, or a golden file.

    How a model is initialised is recorded once, in its own precision: there the references are the values themselves.
    """

    new: Trace
    new_reference: Trace

    def sample(self, pair: Pair) -> Sample | None:
        """Return the values of a pair of float records; None if one has no twin in float64."""

    def likeness(self, legacy: Record, new: Record, order: Sequence[int] = ()) -> float:
        """Return the root mean square of the difference of two float records of one shape, as a share of their size.

        With ``order`` the new one's dimensions come in that order.
        """

    def decision(self, record: Record) -> dict[str, Tensor]:
        """Return the whole decision of the legacy side that ``record`` is a slot of."""

    def gradient(self, pair: Pair) -> Sample | None:
        """Return the values of the gradient with which a step was made, for what it is of; None for other pairs."""

    def before(self, record: Record) -> Numbers | None:
        """Return what a training's step started from, for a legacy ``state`` that it left; None for other records."""

    def sketch_of_legacy(self, pair: Pair, in_float64: bool = True) -> LegacySketch | None:
        """Return what is kept of the legacy side's tensor of a pair; None where there is nothing, or all of the tensor.

        Args:
            pair: of two records.
            in_float64: as the legacy side computes it in float64, or in its own precision.
        """

    def kept(self, pair: Pair) -> Tensor | None:
        """Return the legacy side's tensor of a pair, if it is kept whole; None where it is not, or traces are at hand."""


@dataclass(frozen=True)
class LegacySketch:
    """What is kept of a tensor of the legacy side.

    Attributes:
        values: its sketch, of float64.
        is_finite: all its elements are finite.
        of: makes such a sketch of a tensor of the same shape.
        others: the other records of the legacy side with their sketches.
        sums: which numbers of the sketch are sums over elements, [sums], and their weights, [sums, *shape]; None where
            the tensor, or part of it, is kept whole.
        samples: which numbers of the sketch are single elements, and which elements of the tensor laid out flat.
    """

    values: Tensor
    is_finite: bool
    of: Callable[[Tensor], Tensor]
    others: Callable[[], Iterable[tuple[Record, Tensor]]]
    sums: Callable[[], tuple[Tensor, Tensor] | None]
    samples: Callable[[], tuple[Tensor, Tensor]]


def everywhere(record: Record) -> None:
    """Tell of no record where it holds images: all its places count alike."""


def spreads(
    runs: Iterable[Trace], reference: Trace, values: ValuesOf = whole, places_of: PlacesOf = everywhere
) -> dict[Key, Norms]:
    """Return the largest error of ``runs`` against ``reference`` for every float record that both have.

    Where ``places_of`` tells places of a reference's record, or of the values that stand for it, that of these, too.

    Each run is read once and then let go, so an iterable may make and remove traces on the way. What has another shape
    in a run says nothing of rounding: there a score fell on the other side of a threshold.
    """
    largest: dict[Key, Norms] = {}
    for run in runs:
        twins = [
            (record, reference.by_key[record.key])
            for record in run.records
            if record.is_float
            and record.key in reference.by_key
            and record.shape == reference.by_key[record.key].shape
        ]
        # a module's input is often another's output: measured once
        contents = {(record.digest, twin.digest): (record, twin) for record, twin in twins}
        tasks = (partial(_error, run, reference, *pair, values) for pair in contents.values())
        errors = dict(zip(contents, in_order(tasks, BUFFERED)))
        places = {record.key: places_of(twin) for record, twin in twins}
        parts = {
            (record.digest, twin.digest, id(places[record.key])): (record, twin)
            for record, twin in twins
            if places.get(record.key) is not None
        }
        tasks = (
            partial(_error, run, reference, *pair, partial(_part, values, places[pair[0].key])) for pair in parts.values()
        )
        of_images = dict(zip(parts, in_order(tasks, BUFFERED)))
        for record, twin in twins:
            content = record.digest, twin.digest
            error = replace(errors[content], images=of_images.get((*content, id(places.get(record.key)))))
            largest[record.key] = largest.get(record.key, ZERO) | error
    return largest


def _part(values: ValuesOf, places: Tensor, trace: Trace, record: Record) -> Part:
    return Part(values(trace, record), places)


def _error(run: Trace, reference: Trace, record: Record, twin: Record, values: ValuesOf) -> Norms:
    return distance(values(run, record), values(reference, twin))


def save_spread(spread: Mapping[Key, Norms], path: Path) -> None:
    """Write what :func:`spreads` gives as JSON."""
    rows = ([*key, *_numbers(error), *_numbers(error.images)] for key, error in spread.items())
    path.write_text(json.dumps(list(rows)))


def _numbers(error: Norms | None) -> list[float]:
    return [] if error is None else [error.max, error.rms]


def load_spread(path: Path) -> dict[Key, Norms]:
    """Read what :func:`save_spread` wrote.

    Raises:
        TraceError: if the file is not there or is something else.
    """
    try:
        return {
            (a, b, c, d, e): Norms(top, rms, Norms(*images) if images else None)
            for a, b, c, d, e, top, rms, *images in json.loads(path.read_text())
        }
    except (OSError, ValueError, TypeError) as error:
        raise TraceError(f"{path} cannot be read ({error}); make the run again.") from error


@dataclass(frozen=True)
class TraceEvidence:
    """Evidence from traces at hand.

    Attributes:
        legacy: of the legacy side.
        reference: of the legacy side in float64, under the decisions of ``legacy``.
        spread: of :func:`spreads`.
        new: of the new side.
        new_reference: of the new side in float64, under the same decisions.
        paddings: places of the batch that hold no image.
    """

    legacy: Trace
    reference: Trace
    spread: Mapping[Key, Norms]
    new: Trace
    new_reference: Trace
    paddings: Sequence[Padding] = ()

    @cached_property
    def _images(self) -> Images:
        return Images(self.reference, self.paddings)

    def sample(self, pair: Pair) -> Sample | None:
        if pair.legacy.kind == Kind.INIT:
            legacy, new = whole(self.legacy, self.legacy.by_key[pair.legacy.key]), whole(self.new, pair.new)
            return Sample(legacy, legacy, ZERO, new, new)
        reference = self.reference.by_key.get(pair.legacy.key)
        new_reference = self.new_reference.by_key.get(pair.new.key)
        shape = pair.legacy.shape
        if reference is None or new_reference is None:
            return None
        shapes = (shape, reference.shape), (pair.new.shape, new_reference.shape)
        if not all(is_of_one(*of_side) for of_side in shapes) or math.prod(shape) != math.prod(pair.new.shape):
            return None
        return Sample(
            legacy=whole(self.legacy, self.legacy.by_key[pair.legacy.key]),
            reference=whole(self.reference, reference, shape),
            spread=self.spread.get(pair.legacy.key, ZERO),
            new=whole(self.new, pair.new, shape),
            new_reference=whole(self.new_reference, new_reference, shape),
            amp=self.legacy.provenance.get("amp"),
            places=self._images.places(reference),
        )

    def likeness(self, legacy: Record, new: Record, order: Sequence[int] = ()) -> float:
        return _likeness(self.legacy, self.new, legacy, new, order)

    def decision(self, record: Record) -> dict[str, Tensor]:
        return self.legacy.values_of(*record.key[:4])

    def gradient(self, pair: Pair) -> Sample | None:
        if step_of(pair.legacy.phase) is None or pair.legacy.kind not in (Kind.GRAD, Kind.OPTIM_STATE, Kind.STATE):
            return None
        keys = ((record.phase, Kind.GRAD, record.name, 0, "") for record in (pair.legacy, pair.new))
        one, two = (side.by_key.get(key) for side, key in zip((self.legacy, self.new), keys))
        return None if one is None or two is None else self.sample(Pair(one, two))

    def before(self, record: Record) -> StoredTensor | None:
        step = step_of(record.phase)
        if step is None or record.kind != Kind.STATE:
            return None
        rank = rank_of(record.phase)
        phase, kind = (on_rank("weights", rank), Kind.PARAM) if step == 1 else (phase_of(step - 1, rank), Kind.STATE)
        start = self.legacy.by_key.get((phase, kind, record.name, record.call, record.slot))
        return None if start is None else whole(self.legacy, start)


    def sketch_of_legacy(self, pair: Pair, in_float64: bool = True) -> None:
        return None  # whole tensors are at hand

    def kept(self, pair: Pair) -> None:
        return None  # traces are at hand


def likeness_of(legacy: Recording, new: Trace, evidence: Evidence | None) -> Likeness | None:
    """Return what tells how far two records are apart; None if the legacy side's values are not at hand."""
    if evidence is not None:
        return evidence.likeness
    return partial(_likeness, legacy, new) if isinstance(legacy, Trace) else None


def _likeness(legacy: Trace, new: Trace, one: Record, two: Record, order: Sequence[int] = ()) -> float:
    """Compare the beginning of two tensors; enough to tell which of several is meant."""
    first = next(iter(legacy.stored(one).pieces()))
    if not order:
        return relative_gap(first, next(iter(new.stored(two).pieces())))
    return relative_gap(first, new.tensor(two).permute(*order).reshape(-1)[: len(first)])


def relative_gap(one: Tensor, two: Tensor) -> float:
    """Return the root mean square of the difference where it is finite, over that of the larger of the two."""
    first, second = doubles(one), doubles(two)
    difference, sizes = Size(), (Size(), Size())
    difference.add(gap(first, second))
    for size, piece in zip(sizes, (first, second)):
        size.add(piece)
    largest = max(size.norms().rms for size in sizes)
    return difference.norms().rms / largest if largest else 0.0
