"""Sketches of records: of what a module computes where there are images and where there is padding, each by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from legacy_adapters.recording.trace_writer import Key, Record

from ..comparing.evidence import whole
from ..comparing.padding import Part
from ..traces.pieces import Numbers, pieces
from ..traces.trace import Trace
from .sketch import PROJECTIONS, SAMPLES, positions_of_samples, sketch, weights_of_sums

_FINITE = SAMPLES + PROJECTIONS


@dataclass(frozen=True)
class Sketches:
    """Sketches the records of traces, each content once.

    Attributes:
        places: where the records hold images, of those that hold padding besides; see :class:`..comparing.padding.Images`.
    """

    places: Mapping[Key, Tensor] = field(default_factory=dict)
    _known: dict[tuple[str, int | None, tuple[int, ...]], Tensor] = field(default_factory=dict, repr=False)

    def of(
        self, trace: Trace, record: Record, key: Key | None = None, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        """Return the sketch of a record.

        Args:
            trace: that it is of.
            record: of a tensor.
            key: that of its twin on the legacy side; None for its own.
            shape: that of its twin, where the tensor has as many elements; None for its own.
        """
        places = self.places.get(key or record.key)
        if places is None or shape is None or math.prod(shape) != math.prod(record.shape):
            shape = record.shape  # what has no padding is sketched as it lies in memory
        content = record.digest, None if places is None else id(places), shape
        if content not in self._known:
            self._known[content] = sketched(whole(trace, record, shape), places)
        return self._known[content]

    def places_of(self, record: Record) -> Tensor | None:
        """Return which numbers of a record's sketch are of places with images; None if it has no padding."""
        return sketched_places(self.places.get(record.key), record.shape)


def sketched(numbers: Numbers, places: Tensor | None) -> Tensor:
    """Return the sketch of a tensor; with ``places`` [its first dimensions], of what is there, then of the others.

    A tensor that is not laid out like the places is sketched whole.
    """
    if places is None or tuple(numbers.shape[: places.dim()]) != tuple(places.shape):
        return sketch(numbers)
    return torch.cat([sketch(torch.cat([*pieces(Part(numbers, which))])) for which in (places, ~places)])


def sketched_places(places: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    """Return which numbers of the sketch of a tensor of this shape are of the places, the first ones; None for all."""
    if places is None:
        return None
    each = torch.Size(shape[places.dim() :]).numel()
    inside, outside = (_length(int(which.sum()) * each) for which in (places, ~places))
    return torch.arange(inside + outside) < inside


def sums_of(shape: tuple[int, ...], places: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Return which numbers of a sketch are sums of finite elements, [sums], and their weights, [sums, *shape].

    None where a tensor of this shape, or all of it at the places or elsewhere, is kept whole.
    """
    numbers, weights, start = [], [], 0
    for mask in _masks(shape, places):
        count = int(mask.sum())
        of_part = weights_of_sums(count)
        if of_part is None:
            return None
        whole = torch.zeros(PROJECTIONS, *shape, dtype=torch.float64)
        whole[:, mask] = of_part
        numbers.append(torch.arange(start + SAMPLES, start + _FINITE))
        weights.append(whole)
        start += _length(count)
    return torch.cat(numbers), torch.cat(weights)


def samples_of(shape: tuple[int, ...], places: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return which numbers of a sketch are single elements, [samples], and which these are of the tensor laid out flat."""
    numbers, elements, start = [], [], 0
    for mask in _masks(shape, places):
        here = mask.reshape(-1).nonzero()[:, 0]
        positions = positions_of_samples(len(here))
        numbers.append(torch.arange(start, start + len(positions)))
        elements.append(here[positions])
        start += _length(len(here))
    return torch.cat(numbers), torch.cat(elements)


def _masks(shape: tuple[int, ...], places: Tensor | None) -> list[Tensor]:
    """Return the parts that are sketched by themselves, as masks of the tensor's shape."""
    if places is None or tuple(shape[: places.dim()]) != tuple(places.shape):
        return [torch.ones(shape, dtype=torch.bool)]
    wide = places.reshape(*places.shape, *[1] * (len(shape) - places.dim())).expand(shape)
    return [wide, ~wide]


def is_finite(values: Tensor, shape: tuple[int, ...], places: Tensor | None) -> bool:
    """Tell whether all elements of the tensor that a sketch stands for are finite."""
    lengths = [_length(int(mask.sum())) for mask in _masks(shape, places)]
    return all(bool(part[:_FINITE].isfinite().all()) and not part[_FINITE:].any() for part in values.split(lengths))


def _length(count: int) -> int:
    return count if count <= _FINITE else _FINITE + PROJECTIONS


def marked(new: Tensor, expected: Tensor, places: Tensor | None = None) -> Tensor:
    """Return the sketch ``new`` with NaN for each sum over what is not finite that is another than ``expected``'s.

    These sums are exact and tell where NaN and infinities are: a difference is never one of rounding, however small it
    is beside the tensor's numbers.

    Args:
        new: a sketch.
        expected: the legacy side's.
        places: which numbers are of places with images, as of :func:`sketched_places`.
    """
    if len(new) != len(expected):
        return new
    lengths = [len(new)] if places is None else [int(places.sum()), int((~places).sum())]
    return torch.cat([_marked(*part) for part in zip(new.split(lengths), expected.split(lengths))])


def _marked(new: Tensor, expected: Tensor) -> Tensor:
    other = new[_FINITE:] != expected[_FINITE:]
    return torch.cat([new[:_FINITE], new[_FINITE:].masked_fill(other, float("nan"))])
