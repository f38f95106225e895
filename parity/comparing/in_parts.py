"""Say what the new side recorded of a module's calls, or of rankings, in as many calls as the legacy side made.

Code may handle images or levels one by one that other code handles at once. Where the two sides call a module, or take a
decision, a different number of times, and what the calls take and give is of one shape if it is put together along one
dimension, the new side's records are replaced by the parts that the legacy side has: each is a view of what was
recorded, with a digest of its own, and is compared as any other.

A module may be called several times in one pass, so that the calls of one image come one after the other, or those of
all images for each place. Where shapes allow both, the numbers tell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from converters.rules.mapping import Mapping as Rules
from legacy_adapters.recording.kinds import RESULT
from legacy_adapters.recording.trace_writer import Record, content_digest

from ..decisions.kinds import is_draw
from ..traces.kinds import FLOW, OF_METHODS, OF_MODULES, OF_TAPS, Kind, Subject
from ..traces.trace import Recording, Trace
from .evidence import Evidence, relative_gap
from .pairing import Pair, translator

_KINDS = (OF_MODULES | OF_TAPS) - OF_METHODS
_SUBJECTS = {kind: kind.subject for kind in _KINDS}
_GIVEN = (Kind.MODULE_IN, Kind.BASIS)
#: Phase, subject and name of a module or a decision, as the new side has it.
_Place = tuple[str, Subject, str]
#: By kind and slot, the records of all calls, by their number.
_Calls = dict[tuple[str, str], dict[int, Record]]
#: Places in the order of the calls that belong together: of the legacy side, of the new one.
_Group = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class Part:
    """A part of what several calls take or give, put together.

    Attributes:
        sources: the records, in the order of the calls.
        dim: along which they are put together.
        stacked: they have one dimension less than the whole, of length 1.
        start: where in that dimension the part begins.
        length: of the part; None for a part without that dimension.
    """

    sources: tuple[Record, ...]
    dim: int
    stacked: bool
    start: int
    length: int | None

    def made(self, trace: Trace) -> Tensor:
        """Read the sources, checked, and return the tensor."""
        tensors = [trace.checked_tensor(record) for record in self.sources]
        whole = torch.cat([tensor.unsqueeze(self.dim) if self.stacked else tensor for tensor in tensors], self.dim)
        part = whole.narrow(self.dim, self.start, 1 if self.length is None else self.length)
        return (part.squeeze(self.dim) if self.length is None else part).contiguous()


@dataclass(frozen=True)
class _Made:
    """A record that takes the place of others.

    Attributes:
        like: a record that it is like.
        twin: the legacy side's; None if there is none.
        call: its number.
        part: what it is; None if it is what ``like`` is.
    """

    like: Record
    twin: Record | None
    call: int
    part: Part | None = None


def in_legacy_parts(new: Trace, legacy: Recording, rules: Rules, evidence: Evidence | None = None) -> Trace:
    """Return a recording of the new side in as many calls as the legacy side made, as far as that can be.

    Args:
        new: the new side.
        legacy: the other side, in the new side's form.
        rules: give its modules and decisions their names on the new side.
        evidence: of a derived tolerance.

    Raises:
        parity.traces.trace.TraceError: if a tensor cannot be read or is not what was recorded.
    """
    named = [_named(legacy.records, translator(rules)), _named(new.records, lambda record: record.name)]
    of_legacy, of_new = (_counts_of(records) for records in named)
    uneven = {place for place in of_legacy.keys() & of_new.keys() if of_legacy[place] != of_new[place]}
    if not uneven:
        return new
    ours, theirs = (_calls(records, uneven) for records in named)
    made: dict[Record, list[Record]] = {}
    views: dict[str, Part] = {}
    numbers: dict[_Place, int] = {}
    for place in ours.keys() & theirs.keys():
        counts = len(_order(ours[place])), len(_order(theirs[place]))
        ways = [*_ways(ours[place], theirs[place], *counts)]
        if not ways:
            continue
        numbers[place] = counts[0]
        made |= {record: [] for of_slot in theirs[place].values() for record in of_slot.values()}
        for one in ways[0] if len(ways) == 1 else min(ways, key=partial(_gap, new=new, legacy=legacy, evidence=evidence)):
            record = replace(one.like, call=one.call)
            if one.part is not None:
                tensor = one.part.made(new)
                record = replace(record, shape=tuple(tensor.shape), digest=content_digest(tensor))
                views[record.digest] = one.part
            made[one.like].append(record)
    if not made:
        return new
    records = tuple(form for record in new.records for form in made.get(record, (record,)))
    coverage = {**new.coverage, **_counts(new, records, numbers)}
    return replace(new, records=records, views={**views, **new.views}, coverage=coverage)


def _gap(way: Iterable[_Made], new: Trace, legacy: Recording, evidence: Evidence | None) -> float:
    """Return how far what the calls are given is from what the legacy side gives, as a share of its size."""
    largest = 0.0
    for one in way:
        if one.part is None or one.twin is None or not one.twin.is_float or one.twin.kind not in _GIVEN:
            continue
        tensor = one.part.made(new).reshape(one.twin.shape)
        if isinstance(legacy, Trace):
            expected = legacy.tensor(one.twin).reshape(-1)
        else:
            kept = None if evidence is None else evidence.sketch_of_legacy(Pair(one.twin, one.like), in_float64=False)
            if kept is None:
                continue
            expected, tensor = kept.values, kept.of(tensor)
        largest = max(largest, relative_gap(expected, tensor.reshape(-1)))
    return largest


def _named(records: Iterable[Record], name_of: Callable[[Record], str]) -> list[tuple[_Place, Record]]:
    """Return the records of calls of modules and of decisions, each with its place."""
    return [
        ((record.phase, _SUBJECTS[record.kind], name_of(record)), record)
        for record in records
        if record.kind in _KINDS and record.name not in ("", RESULT) and not is_draw(record)
    ]


def _counts_of(named: Iterable[tuple[_Place, Record]]) -> dict[_Place, int]:
    calls: dict[_Place, set[int]] = defaultdict(set)
    for place, record in named:
        calls[place].add(record.call)
    return {place: len(numbers) for place, numbers in calls.items()}


def _calls(named: Iterable[tuple[_Place, Record]], places: Collection[_Place]) -> dict[_Place, _Calls]:
    """Return the calls of some places; not of modules whose calls pair together, for these have an order."""
    calls: dict[_Place, _Calls] = defaultdict(lambda: defaultdict(dict))
    names: dict[_Place, set[str]] = defaultdict(set)
    for place, record in named:
        if place in places:
            calls[place][record.kind, record.slot][record.call] = record
            names[place].add(record.name)
    return {place: of_place for place, of_place in calls.items() if len(names[place]) == 1}


def _order(calls: _Calls) -> list[int]:
    return sorted({number for of_slot in calls.values() for number in of_slot})


def _ways(ours: _Calls, theirs: _Calls, count: int, number: int) -> Iterator[list[_Made]]:
    """Yield what the legacy side's ``count`` calls are of the ``number`` calls of the new side; nothing if no parts."""
    for groups in _groupings(count, number):
        made = _in_parts(ours, theirs, count, groups)
        if made is not None:
            yield made


def _groupings(count: int, number: int) -> Iterator[list[_Group]]:
    """Yield which calls may belong together."""
    yield [(range(count), range(number))]
    few, many = sorted((count, number))
    if few > 1 and many % few == 0:
        each = many // few
        for groups in (
            [((one,), range(one * each, (one + 1) * each)) for one in range(few)],
            [((one,), range(one, many, few)) for one in range(few)],
        ):
            yield groups if few == count else [(more, one) for one, more in groups]


def _in_parts(
    ours: _Calls, theirs: _Calls, count: int, groups: Iterable[_Group]
) -> list[_Made] | None:
    """Return what takes the place of the new side's records; None if its calls are no parts of a whole.

    What is no tensor is the same for all parts. A gradient need not flow everywhere; one that flows on the new side only
    is told by itself, as a call behind all others.
    """
    made: list[_Made] = []
    groups, orders = list(groups), [_order(calls) for calls in (ours, theirs)]
    for (kind, slot), records in theirs.items():
        twins = ours.get((kind, slot)) or _only_other(kind, ours, theirs) or {}
        for first, second in groups:
            one = [twins.get(orders[0][place]) for place in first]
            two = [records.get(orders[1][place]) for place in second]
            if kind in FLOW and (None in one or None in two):
                made += [_Made(record, None, count + record.call) for record in two if record is not None]
                continue
            if None in one or None in two:
                return None
            if any(record.shape for record in (*one, *two)):
                parts: Sequence[Part | None] | None = _parts(one, two)
            else:
                parts = [None] * len(one) if len({record.digest for record in two}) == 1 else None
            if parts is None:
                return None
            made += [_Made(two[0], twin, place, part) for place, twin, part in zip(first, one, parts)]
    return made


def _only_other(kind: str, ours: _Calls, theirs: _Calls) -> dict[int, Record] | None:
    """Return the records of the one slot of a kind that is called otherwise on the other side; None if there are more."""
    names = [{slot for of, slot in calls if of == kind} for calls in (ours, theirs)]
    lone, other = names[0] - names[1], names[1] - names[0]
    return ours[kind, lone.pop()] if len(lone) == len(other) == 1 else None


def _parts(ours: Sequence[Record], theirs: Sequence[Record]) -> list[Part] | None:
    """Return how the new side's tensors make the legacy side's; None if along no dimension they do."""
    if len({record.dtype for record in theirs}) != 1:
        return None
    dims = max(len(record.shape) for record in (*ours, *theirs))
    for dim in range(dims):
        one, two = ([_with_dim(record.shape, dim, dims) for record in side] for side in (ours, theirs))
        lengths = [[shape[dim] for shape in side] for side in (one, two)]
        rest = {shape[:dim] + shape[dim + 1 :] for shape in (*one, *two)}
        if len(rest) == 1 and sum(lengths[0]) == sum(lengths[1]):
            starts = accumulate(lengths[0][:-1], initial=0)
            stacked = len(theirs[0].shape) < dims
            return [
                Part(tuple(theirs), dim, stacked, start, length if len(record.shape) == dims else None)
                for record, start, length in zip(ours, starts, lengths[0])
            ]
    return None


def _with_dim(shape: tuple[int, ...], dim: int, dims: int) -> tuple[int, ...]:
    """Return a shape with one more dimension of length 1, if it has one less."""
    return shape if len(shape) != dims - 1 else (*shape[:dim], 1, *shape[dim:])


def _counts(new: Trace, records: Sequence[Record], numbers: Mapping[_Place, int]) -> dict[str, list[dict]]:
    """Return the numbers of calls and records that the run counted, with the parts."""
    more = Counter((record.phase, record.kind) for record in records)
    more.subtract((record.phase, record.kind) for record in new.records)
    coverage = {
        which: [
            dict(one, count=numbers.get((one["phase"], Subject.MODULE, one["name"]), one["count"]))
            for one in new.coverage[which]
        ]
        for which in ("leaf_calls", "inner_calls")
        if which in new.coverage
    }
    counted = new.coverage.get("records")
    if counted is not None:
        coverage["records"] = [dict(one, count=one["count"] + more[one["phase"], one["kind"]]) for one in counted]
    return coverage
