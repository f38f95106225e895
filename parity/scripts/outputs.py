"""Tell where a model gives what the other one gives, but under another name or in another order.

Outputs that hold the same are paired whatever they are called, so that the containers of two code bases need not be
alike. Code that uses the model notices all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ..comparing.pairing import Pair
from ..traces.kinds import Kind

#: Slots of both sides.
Renamed = tuple[tuple[str, str], ...]


def renamed_outputs(pairs: Iterable[Pair]) -> Renamed:
    """Return the slots of the models' own outputs that differ in more than the container.

    That are names beside other names, and names beside places where the order is another one: ``boxes, scores`` beside
    a tuple of scores and boxes.

    Args:
        pairs: of all records, in the old side's recording order.
    """
    calls: dict[tuple[str, int], list[tuple[str, str]]] = defaultdict(list)
    for pair in pairs:
        if pair.legacy.kind == Kind.MODULE_OUT and not pair.legacy.name:
            calls[pair.legacy.phase, pair.legacy.call].append((pair.legacy.slot, pair.new.slot))
    found = (one for slots in calls.values() for one in _of_call(slots))
    return tuple(dict.fromkeys(found))


def _of_call(slots: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    names = [tuple(_names(slot) for slot in pair) for pair in slots]
    places = [two for (_, two), (_, named) in zip(slots, names) if not named] or [
        one for (one, _), (named, _) in zip(slots, names) if not named
    ]
    in_order = places == sorted(places, key=_place)
    for slot, (one, two) in zip(slots, names):
        if one != two and (not in_order if not one or not two else True):
            yield slot


def _names(slot: str) -> tuple[str, ...]:
    """Return the parts of a slot that are no places in a list or tuple."""
    return tuple(part for part in slot.split(".") if not part.isdigit() and part)


def _place(slot: str) -> tuple[int, ...]:
    return tuple(int(part) for part in slot.split(".") if part.isdigit())
