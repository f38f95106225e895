"""Find the twin of every call, argument and decision, also where the two sides order or name them otherwise.

A refactoring may handle images or levels in another order, give parameters other names, or return a dict in place of a
tuple, and compute the same bits. So calls of one module, and decisions of one tap, pair by what they are given and only
then by their order; arguments and outputs of one call pair by name, then by content, then by position. What pairs is
compared all the same: pairing by content says only which call is which.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

from legacy_adapters.recording.draws import request
from legacy_adapters.recording.trace_writer import Key, Record

from ..decisions.kinds import rule_of
from ..traces.kinds import INPUTS, OF_TAPS, OUTPUTS, Kind, Subject

#: What the records of one event are about: a call of a module, or a decision.
_SUBJECTS = {kind: Kind(kind).subject for kind in (*INPUTS, *OUTPUTS, *OF_TAPS)}
#: Tells how far two records of one form are apart, as a share of their size; also with the second one's dimensions in
#: another order.
Likeness = Callable[..., float]
#: What is given differs by less than this between the sides, unless something is wrong.
NEAR = 0.01


@dataclass
class _Event:
    """One call of a module, or one decision: the records it has left.

    Attributes:
        name: of the module or tap, on the new side.
        call: its number.
        slots: records by kind and slot.
    """

    name: str
    call: int
    slots: dict[str, dict[str, Record]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def inputs(self) -> dict[str, Record]:
        """What the call is given, or the decision rests on."""
        return self.slots[Kind.MODULE_IN] or self.slots[Kind.BASIS]


def new_keys(
    legacy: dict[Key, Record],
    new: dict[Key, Record],
    likeness: Likeness | None = None,
    joined: Callable[[str], str] = str,
) -> dict[Key, Key]:
    """Return for every legacy record the key that its twin on the new side has, or would have.

    Args:
        legacy: records by key, under the names of the new side.
        new: records by key.
        likeness: tells calls apart whose contents are no two the same; None if only equal bits count.
        joined: gives for a module of the new side the name under which its calls are looked for: that of the first of
            the modules whose calls pair together.
    """
    keys = {key: key for key in legacy}
    # what has one name matches or does not, whatever else there is; most of it has the same bits under the same keys
    differing = {key[2] for key, record in legacy.items() if key not in new or new[key].digest != record.digest}
    differing |= {joined(key[2]) for key in new if key not in legacy} | {key[2] for key in new if key not in legacy}
    ours, theirs = (
        _events({key: record for key, record in side.items() if key[2] in differing or name_of(key[2]) in differing}, name_of)
        for side, name_of in ((legacy, str), (new, joined))
    )
    lone: dict[tuple[str, Subject], tuple[list[_Event], list[_Event]]] = defaultdict(lambda: ([], []))
    for place in ours:
        pairs, left, more = _matched(ours[place], theirs.get(place, []), _PASSES, likeness)
        for one, two in pairs:
            _pair_slots(keys, one, two, likeness)
        if place[1] is Subject.TAP:
            lone[place[0], place[1]][0].extend(left)
            lone[place[0], place[1]][1].extend(more)
        else:
            _renumber(keys, left, theirs.get(place, []))
    for place in theirs:
        if place[1] is Subject.TAP and place not in ours:
            lone[place[0], place[1]][1].extend(theirs[place])
    for left, more in lone.values():
        # a decision that is taken elsewhere has another name; what it rests on tells which it is
        pairs, left, _ = _matched(left, more, (_content,), None)
        for one, two in pairs:
            _pair_slots(keys, one, two, likeness)
        for name in {event.name for event in left}:
            of_name = [event for events in theirs.values() for event in events if event.name == name]
            _renumber(keys, [event for event in left if event.name == name], of_name)
    _pair_requests(keys, legacy, new)
    return keys


def _pair_requests(keys: dict[Key, Key], legacy: Iterable[Key], new: Iterable[Key]) -> None:
    """Pair what draws ask for also where another function makes the same numbers, as ``rand`` and ``rand_like`` do."""
    asked = {(*key[:4], request(key[4])): key for key in new if key[1] == Kind.BASIS}
    for key in legacy:
        if key[1] == Kind.BASIS:
            place = keys[key]
            keys[key] = asked.get((*place[:4], request(place[4])), place)


def _events(
    records: dict[Key, Record], joined: Callable[[str], str]
) -> dict[tuple[str, Subject, str], list[_Event]]:
    """Group the records of module calls and of decisions by phase, subject and name; random draws are a sequence."""
    groups: dict[tuple[str, Subject, str], dict[tuple[str, int], _Event]] = defaultdict(dict)
    for (phase, kind, name, call, slot), record in records.items():
        if kind in _SUBJECTS:
            subject = _SUBJECTS[kind]
            place = (phase, subject, joined(name) if subject is Subject.MODULE else name)
            event = groups[place].setdefault((name, call), _Event(name, call))
            event.slots[kind][slot] = record
    return {
        # calls of several modules are in the order of their records
        place: sorted(events.values(), key=lambda event: event.call if len({name for name, _ in events}) == 1 else 0)
        for place, events in groups.items()
        if place[1] is Subject.MODULE or all(rule_of(event.slots[Kind.BASIS]) is not None for event in events.values())
    }


def _content(event: _Event) -> Hashable:
    return tuple((slot, record.digest) for slot, record in sorted(event.inputs.items()))


def _content_and_kinds(event: _Event) -> Hashable:
    # of calls on equal inputs, those with gradients belong together
    return _content(event), frozenset(kind for kind, slots in event.slots.items() if slots)


def _tensors(event: _Event) -> Hashable:
    return tuple(sorted(record.digest for record in event.inputs.values() if record.shape))


def _form(event: _Event) -> Hashable:
    return tuple(sorted((record.dtype, record.shape) for record in event.inputs.values() if record.shape))


def _any(event: _Event) -> Hashable:
    return ()


#: By what events pair, the first first; those that are alike in it pair in order.
_PASSES = (_content_and_kinds, _content, _tensors, _form, _any)


def _matched(
    ours: Sequence[_Event], theirs: Sequence[_Event], passes: Iterable[Callable], likeness: Likeness | None
) -> tuple[list[tuple[_Event, _Event]], list[_Event], list[_Event]]:
    """Pair events; return the pairs and what is left on either side."""
    pairs: list[tuple[_Event, _Event]] = []
    ours, theirs = list(ours), list(theirs)
    for alike in passes:
        if alike is _form and Counter(map(_form, ours)) != Counter(map(_form, theirs)):
            continue  # what they are given is not the same in another order
        groups: dict[Hashable, list[_Event]] = defaultdict(list)
        for event in theirs:
            groups[alike(event)].append(event)
        of_ours: dict[Hashable, list[_Event]] = defaultdict(list)
        for event in ours:
            of_ours[alike(event)].append(event)
        for what, group in of_ours.items():
            rivals = groups.get(what, [])
            if alike is _form and likeness is not None:
                group, rivals = _by_likeness(group, rivals, likeness)
            pairs += zip(group, rivals)
        taken = {id(event) for pair in pairs for event in pair}
        ours, theirs = ([e for e in side if id(e) not in taken] for side in (ours, theirs))
        if not ours or not theirs:
            break
    return pairs, ours, theirs


def _by_likeness(
    ours: Sequence[_Event], theirs: Sequence[_Event], likeness: Likeness
) -> tuple[list[_Event], list[_Event]]:
    """Bring two groups of events of one form into one order: the nearest first, the rest as they come."""
    if len(ours) < 2 and len(theirs) < 2:
        return list(ours), list(theirs)
    if len(ours) == len(theirs) and all(_distance(one, two, likeness) < NEAR for one, two in zip(ours, theirs)):
        return list(ours), list(theirs)
    gaps = sorted(
        (_distance(one, two, likeness), i, j) for i, one in enumerate(ours) for j, two in enumerate(theirs)
    )
    first, second = {}, {}
    for gap, i, j in gaps:
        if gap < NEAR and i not in first and j not in second:
            first[i], second[j] = j, i
    left = [i for i in range(len(ours)) if i not in first], [j for j in range(len(theirs)) if j not in second]
    order = [*first.items(), *zip(*left)]
    return [ours[i] for i, _ in order], [theirs[j] for _, j in order]


def _distance(one: _Event, two: _Event, likeness: Likeness) -> float:
    """Return how far the largest tensors of what two events of one form are given are apart."""
    largest = [
        max(event.inputs.values(), key=lambda record: (record.is_float, numel(record)), default=None)
        for event in (one, two)
    ]
    if largest[0] is None or largest[0].shape != largest[1].shape or not largest[0].is_float:
        return 0.0
    return likeness(*largest)


def numel(record: Record) -> int:
    """Return how many elements a record's tensor has."""
    return math.prod(record.shape)


def _pair_slots(keys: dict[Key, Key], ours: _Event, theirs: _Event, likeness: Likeness | None) -> None:
    """Give all records of one legacy event the keys of the new one."""
    for value, gradient in (INPUTS, OUTPUTS):
        slots = _slots(ours.slots[value], theirs.slots[value], likeness)
        for kind in (value, gradient):
            _rename(keys, ours, kind, theirs, slots)
    for kind in OF_TAPS:
        one, two = ours.slots[kind], theirs.slots[kind]
        # a list of indices is called otherwise where another function gives it
        _rename(keys, ours, kind, theirs, dict(zip(one, two)) if len(one) == len(two) == 1 else {})


def _rename(keys: dict[Key, Key], ours: _Event, kind: str, theirs: _Event, slots: dict[str, str]) -> None:
    for slot, record in ours.slots[kind].items():
        key = (record.phase, kind, ours.name, ours.call, slot)
        keys[key] = (record.phase, kind, theirs.name, theirs.call, slots.get(slot, slot))


def _slots(ours: dict[str, Record], theirs: dict[str, Record], likeness: Likeness | None) -> dict[str, str]:
    """Pair the slots of one call that have other names: equal contents first, then tensors of one form, or of as many
    numbers, by position, each content once; then, where one side has more, by how near they are. What repeats a content goes with it.

    Numbers pair by name or content only: two that differ and are called otherwise need not be the same thing.
    """
    left = [slot for slot in ours if slot not in theirs]
    more = [slot for slot in theirs if slot not in ours]
    twins: dict[str, str] = {}
    for slot in left:
        twin = next((other for other in more if theirs[other].digest == ours[slot].digest), None)
        if twin is not None:
            twins[slot] = twin
            more.remove(twin)
    tensors = _distinct([slot for slot in left if slot not in twins and ours[slot].shape], ours)
    others = _distinct([slot for slot in more if theirs[slot].shape], theirs)
    records = [ours[slot] for slot in tensors], [theirs[slot] for slot in others]
    if any([*map(form, records[0])] == [*map(form, records[1])] for form in (_form_of, _size_of)):
        twins.update(zip(tensors, others))
    elif likeness is not None:
        twins.update(_nearest(*records, likeness))
    for slot in tensors:
        if slot in twins:
            again = [other for other in left if other not in twins and ours[other].digest == ours[slot].digest]
            twin = theirs[twins[slot]]
            taken = set(twins.values())
            twins.update(zip(again, (s for s in more if s not in taken and theirs[s].digest == twin.digest)))
    return twins


def _form_of(record: Record) -> tuple[str, tuple[int, ...]]:
    return record.dtype, record.shape


def _size_of(record: Record) -> tuple[str, int]:
    return record.dtype, numel(record)


def _nearest(ours: Sequence[Record], theirs: Sequence[Record], likeness: Likeness) -> dict[str, str]:
    """Pair slots of floats of one form that differ by less than :data:`NEAR`, the nearest first."""
    gaps = sorted(
        (likeness(one, two), i, j)
        for i, one in enumerate(ours)
        for j, two in enumerate(theirs)
        if one.is_float and _form_of(one) == _form_of(two)
    )
    first: dict[int, int] = {}
    for gap, i, j in gaps:
        if gap < NEAR and i not in first and j not in first.values():
            first[i] = j
    return {ours[i].slot: theirs[j].slot for i, j in first.items()}


def _distinct(slots: Sequence[str], records: dict[str, Record]) -> list[str]:
    """Return slots without those that hold what one before holds, such as the keys of self-attention its queries."""
    first: dict[str, str] = {}
    for slot in slots:
        first.setdefault(records[slot].digest, slot)
    return list(first.values())


def _renumber(keys: dict[Key, Key], lone: Sequence[_Event], theirs: Sequence[_Event]) -> None:
    """Give events without a twin numbers behind all of the new side's, so that they meet none by chance."""
    if not theirs or not lone:
        return
    behind = 1 + max(event.call for event in (*lone, *theirs))
    for event, number in zip(lone, count(behind)):
        for kind, slots in event.slots.items():
            for slot, record in slots.items():
                keys[record.phase, kind, event.name, event.call, slot] = (
                    record.phase, kind, event.name, number, slot,
                )  # fmt: skip

