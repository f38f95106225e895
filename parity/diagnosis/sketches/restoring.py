"""The legacy side's tensor where only its digest is at hand: what the new side has, changed back, may have that digest.

A digest is of every bit, so a tensor that has it is the legacy side's; what the difference is, is then asked of the two
tensors as of any others. Nothing is said of how the tensor was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, permutations

import torch
from torch import Tensor

from legacy_adapters.recording.trace_writer import Record, content_digest

from ...traces.shard import TORCH_DTYPES
from ...traces.trace import Trace
from ..kinds import Diagnosis, DiagnosisKind
from ..measuring import said

#: Larger tensors are looked for among the new side's records only.
_MOST_ELEMENTS = 1 << 20
_MOST_ROLLS, _MOST_ORDERS, _MOST_EXCHANGED = 8, 5, 16
#: Of parameters and settings that were left as they are made.
_CONSTANTS = (0.0, 1.0, -1.0)
_LEAST_EQUAL = 4


@dataclass(frozen=True)
class Restored:
    """A legacy side of which one tensor is at hand.

    Attributes:
        records: all, as the golden file lists them.
        record: the one.
        values: its tensor.
    """

    records: tuple[Record, ...]
    record: Record
    values: Tensor = field(repr=False)

    def tensor(self, record: Record) -> Tensor:
        """Return the tensor.

        Raises:
            KeyError: for any other record.
        """
        if record.key != self.record.key:
            raise KeyError(record.key)
        return self.values


def restored(legacy: Record, new: Tensor, trace: Trace) -> Tensor | None:
    """Return the tensor with the digest of ``legacy``; None if nothing that was tried has it.

    Args:
        legacy: record of which no tensor is at hand.
        new: what the new side has in its place.
        trace: the new side's, of which another record may hold it.
    """
    twin = next((one for one in trace.records if one.digest == legacy.digest), None)
    if twin is not None:
        return trace.tensor(twin)
    dtype = TORCH_DTYPES.get(legacy.dtype)
    if dtype is None or new.numel() > _MOST_ELEMENTS:
        return None
    for candidate in _candidates(legacy, new, dtype):
        if tuple(candidate.shape) == legacy.shape and candidate.dtype == dtype:
            if content_digest(candidate) == legacy.digest:
                return candidate.contiguous()
    return None


def constant(record: Record, new: Tensor) -> Iterator[Diagnosis]:
    """Yield that the new side has the same number everywhere, where of the legacy side nothing but a digest is at hand."""
    numbers = new.double().flatten()
    if len(numbers) >= _LEAST_EQUAL and bool((numbers == numbers[0]).all()) and bool(numbers[0].isfinite()):
        text = f"every number of the new side is {said(float(numbers[0]))}"
        yield Diagnosis(DiagnosisKind.CONSTANT, text, 0.0, float("inf"), 1, record.key)


def _candidates(legacy: Record, new: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield what the legacy side may have, by one change of form, sign or order."""
    for number in _CONSTANTS:
        yield torch.full(legacy.shape, number).to(dtype)
    if new.numel() == torch.Size(legacy.shape).numel():
        yield new.reshape(legacy.shape).to(dtype)
    if new.dtype != dtype:
        return
    yield from _changed(new)
    yield from _reordered(new)


def _changed(new: Tensor) -> Iterator[Tensor]:
    if new.dtype == torch.bool:
        yield ~new
        return
    yield -new
    for factor in (2, 0.5) if new.is_floating_point() else (2,):
        yield new * factor
    for offset in (1, -1):
        yield new + offset
    for axis, length in enumerate(new.shape):
        if length > 1:
            first, last = new.narrow(axis, 0, 1), new.narrow(axis, length - 1, 1)
            for end in (torch.zeros_like(first), first):
                yield torch.cat([end, new.narrow(axis, 0, length - 1)], axis)
            for end in (torch.zeros_like(last), last):
                yield torch.cat([new.narrow(axis, 1, length - 1), end], axis)


def _reordered(new: Tensor) -> Iterator[Tensor]:
    long = [axis for axis, length in enumerate(new.shape) if length > 1]
    for count in range(1, min(3, len(long)) + 1):
        for axes in combinations(long, count):
            yield new.flip(axes)
    for order in permutations(range(new.dim())) if 2 <= new.dim() <= 4 else ():
        yield new.permute(order)
    for axis in long:
        yield from _along(new, axis)


def _along(new: Tensor, axis: int) -> Iterator[Tensor]:
    length = new.shape[axis]
    if length <= _MOST_ORDERS:
        yield from (new.index_select(axis, torch.tensor(order)) for order in permutations(range(length)))
        return
    for one, two in combinations(range(length), 2) if length <= _MOST_EXCHANGED else ():
        order = torch.arange(length)
        order[one], order[two] = two, one
        yield new.index_select(axis, order)
    rolls: Iterable[int] = {by for by in range(1, _MOST_ROLLS + 1) if by < length} | {length // 2}
    for by in rolls:
        yield new.roll(by, axis)
        yield new.roll(-by, axis)
    for count in (number for number in range(2, 33) if length % number == 0 and length // number > 1):
        blocks = new.unflatten(axis, (count, length // count))
        yield blocks.flip(axis).flatten(axis, axis + 1)
        yield blocks.flip(axis + 1).flatten(axis, axis + 1)
        yield blocks.transpose(axis, axis + 1).flatten(axis, axis + 1)
