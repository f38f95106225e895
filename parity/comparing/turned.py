"""Tensors that differ in nothing but the order of their dimensions, and the forms that would say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

from legacy_adapters.correspondence import Form
from legacy_adapters.recording.trace_writer import Record

from ..traces.kinds import OF_MODULES, OF_TAPS
from .compare import Comparison
from .idle import form_text
from .twins import Likeness

#: What differs by less than this share of its size is equal but for its layout.
_EQUAL = 1e-4
#: Of more dimensions, not every order is tried; of more records, not every one.
_MOST_DIMENSIONS, _MOST_RECORDS = 4, 100


def turned(comparisons: Sequence[Comparison], likeness: Likeness) -> dict[int, tuple[int, ...]]:
    """Return of rejected comparisons, by their position, the order that the new side has the dimensions in.

    Args:
        comparisons: of all pairs.
        likeness: tells how far two records are apart.
    """
    kinds = OF_MODULES | OF_TAPS
    places = [
        index for index, one in enumerate(comparisons)
        if not one.accepted and one.pair.legacy.kind in kinds and one.pair.legacy.is_float
    ]  # fmt: skip
    orders = {i: _order(comparisons[i].pair.legacy, comparisons[i].pair.new, likeness) for i in places[:_MOST_RECORDS]}
    return {index: order for index, order in orders.items() if order is not None}


def _order(legacy: Record, new: Record, likeness: Likeness) -> tuple[int, ...] | None:
    if legacy.dtype != new.dtype or sorted(legacy.shape) != sorted(new.shape):
        return None
    if not 2 <= len(legacy.shape) <= _MOST_DIMENSIONS:
        return None
    same = likeness(legacy, new) if legacy.shape == new.shape else None
    for order in permutations(range(len(legacy.shape))):
        back = tuple(sorted(range(len(order)), key=order.__getitem__))
        if order == tuple(range(len(order))) or tuple(legacy.shape[dim] for dim in order) != new.shape:
            continue
        gap = likeness(legacy, new, back)
        if gap < _EQUAL and (same is None or gap < same / 2):
            return order
    return None


def forms_for(comparisons: Sequence[Comparison], orders: dict[int, tuple[int, ...]]) -> list[str]:
    """Return the forms to write for what :func:`turned` gives, each once; layers of one kind have one.

    A form names a slot where other tensors of the module's calls are laid out alike on both sides.
    """
    if not orders:
        return []
    alike = {_pattern(c.pair.legacy.name) for c in comparisons if c.accepted and _is_laid_out(c.pair.legacy)}
    return list(dict.fromkeys(form_text(form) for form in _forms(comparisons, orders, alike)))


def _forms(
    comparisons: Sequence[Comparison], orders: dict[int, tuple[int, ...]], alike: set[str]
) -> Iterator[Form]:
    for index, order in orders.items():
        record = comparisons[index].pair.legacy
        name = _pattern(record.name)
        yield Form(name, slot=record.slot if name in alike and record.slot else "*", permute=order)


def _is_laid_out(record: Record) -> bool:
    return record.kind in OF_MODULES and sum(length > 1 for length in record.shape) > 1


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
