"""Calls of one module, or rankings, that are made in parts on one side: image by image there, all images at once here.

Put together in their order, along one dimension of either side or a new one, what the calls take and give must be the
same. As that is computed of other shapes, it may round otherwise; whether it is right shows in all else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from legacy_adapters.recording.kinds import RESULT
from legacy_adapters.recording.trace_writer import Key, Record

from ..comparing.compare import EXACT, Comparison, Difference, Tolerance, measure
from ..comparing.evidence import relative_gap
from ..comparing.pairing import LEGACY, NEW, Unpaired
from ..decisions.kinds import is_draw
from ..traces.kinds import OF_METHODS, OF_MODULES, OF_TAPS, Kind, Subject
from ..traces.trace import Recording, Trace

#: Parts that are put together differ by less than this, unless something is wrong.
_NEAR = 1e-4
_KINDS = (OF_MODULES | OF_TAPS) - OF_METHODS
#: Phase, subject and name of a module or a decision, and kind and slot of what calls take or give, as the new side has
#: them.
_Place = tuple[str, Subject, str]
_Slot = tuple[str, str]


@dataclass(frozen=True)
class Parts:
    """What is equal if all calls of a module are put together.

    Attributes:
        comparisons: what pairs of single calls are then, by the ``id`` of their comparison.
        lone: side and key of the records of calls that have no twin.
    """

    comparisons: Mapping[int, Comparison] = field(default_factory=dict)
    lone: frozenset[tuple[str, Key]] = frozenset()


def in_parts(
    comparisons: Sequence[Comparison], unpaired: Iterable[Unpaired], keys: Mapping[Key, Key],
    legacy: Recording, new: Trace, tolerance: Tolerance,
) -> Parts:
    """Find the modules and decisions that one side has more calls of, with parts of what the other side gives them at once.

    Args:
        comparisons: of all pairs.
        unpaired: records without a twin.
        keys: of the pairing: what the legacy side's records are called on the new side.
        legacy: the one side; nothing is found if its values are not at hand.
        new: the other side.
        tolerance: what counts as equal.
    """
    lone = [item for item in unpaired if _may_be_part(item.record) and not item.is_accounted]
    if not lone or not isinstance(legacy, Trace):
        return Parts()
    places = {_place(item.side, item.record, keys) for item in lone}
    calls: dict[_Place, dict[str, dict[_Slot, dict[int, Record]]]] = {
        place: {LEGACY: defaultdict(dict), NEW: defaultdict(dict)} for place in places
    }
    pairs = []
    for one in comparisons:
        record = one.pair.new
        place, slot = _place(NEW, record, keys), (record.kind, record.slot)
        if place in places and _may_be_part(record):
            pairs.append((one, place, slot))
            calls[place][LEGACY][slot][one.pair.legacy.call] = one.pair.legacy
            calls[place][NEW][slot][record.call] = record
    for item in lone:
        calls[_place(item.side, item.record, keys)][item.side][_slot(item, keys)][item.record.call] = item.record
    equal: dict[tuple[_Place, _Slot], Difference] = {}
    for place, sides in calls.items():
        if all(sides.values()) and len({_count(of_side) for of_side in sides.values()}) == 2:
            for slot in sides[LEGACY].keys() & sides[NEW].keys():
                one, two = _tensors(legacy, sides[LEGACY][slot]), _tensors(new, sides[NEW][slot])
                difference = _difference(one, two, tolerance.name == EXACT)
                if difference is not None:
                    equal[place, slot] = difference
    found = {
        id(one): _accepted(one, equal[place, slot])
        for one, place, slot in pairs
        if not one.accepted and (place, slot) in equal
    }
    keys_of = (
        (item.side, item.record.key)
        for item in lone
        if (_place(item.side, item.record, keys), _slot(item, keys)) in equal
    )
    return Parts(found, frozenset(keys_of))


def _may_be_part(record: Record) -> bool:
    """Tell whether a record is of a call of a module, or of a decision; random draws are one sequence."""
    return record.kind in _KINDS and not is_draw(record) and record.name != RESULT


def _place(side: str, record: Record, keys: Mapping[Key, Key]) -> _Place:
    name = keys.get(record.key, record.key)[2] if side == LEGACY else record.name
    return record.phase, Kind(record.kind).subject, name


def _slot(item: Unpaired, keys: Mapping[Key, Key]) -> _Slot:
    record = item.record
    return record.kind, (keys.get(record.key, record.key)[4] if item.side == LEGACY else record.slot)


def _count(calls: Mapping[_Slot, Mapping[int, Record]]) -> int:
    return len({number for of_slot in calls.values() for number in of_slot})


def _accepted(comparison: Comparison, difference: Difference) -> Comparison:
    is_same = difference.max_abs == 0
    return Comparison(comparison.pair, is_same, True, None if is_same else difference)


def _tensors(side: Trace, records: Mapping[int, Record]) -> list[Tensor]:
    return [side.tensor(records[call]) for call in sorted(records)]


def _difference(one: Sequence[Tensor], two: Sequence[Tensor], is_exact: bool) -> Difference | None:
    """Compare two lists of tensors, put together along the dimension in which they are parts of one another."""
    if len({tensor.dtype for tensor in (*one, *two)}) != 1:
        return None
    if not any(tensor.dim() for tensor in (*one, *two)):  # a number that each part is given
        return Difference(0.0, 0.0, "") if len({tensor.item() for tensor in (*one, *two)}) == 1 else None
    for first, second in _together(one, two):
        if torch.equal(first, second):
            return Difference(0.0, 0.0, "")
        is_near = first.is_floating_point() and relative_gap(first.reshape(-1), second.reshape(-1)) < _NEAR
        if is_near and not is_exact:
            return measure(first, second)
    return None


def _together(one: Sequence[Tensor], two: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield two lists of tensors put together, in each way that gives both one shape."""
    dims = max(tensor.dim() for tensor in (*one, *two))
    for dim in range(dims):
        # tensors of one dimension less are laid beside one another in a new one
        lists = [[t.unsqueeze(dim) if t.dim() == dims - 1 else t for t in tensors] for tensors in (one, two)]
        if len({t.shape[:dim] + t.shape[dim + 1 :] for tensors in lists for t in tensors}) == 1:
            first, second = (torch.cat(tensors, dim) for tensors in lists)
            if first.shape == second.shape:
                yield first, second
