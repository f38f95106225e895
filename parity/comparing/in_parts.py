"""Say what the new side recorded of a module's calls, or of rankings, in as many calls as the legacy side made.

Code may handle images or levels one by one that other code handles at once. Where the two sides call a module, or take a
decision, a different number of times, and what the calls take and give is of one shape if it is put together along one
dimension, the new side's records are replaced by the parts that the legacy side has: each is a view of what was
recorded, with a digest of its own, and is compared as any other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from converters.rules.mapping import Mapping as Rules
from legacy_adapters.recording.kinds import RESULT
from legacy_adapters.recording.trace_writer import Record, content_digest

from ..decisions.kinds import is_draw
from ..traces.kinds import FLOW, OF_METHODS, OF_MODULES, OF_TAPS, Kind, Subject
from ..traces.trace import Recording, Trace
from .pairing import translator

_KINDS = (OF_MODULES | OF_TAPS) - OF_METHODS
#: Phase, subject and name of a module or a decision, as the new side has it.
_Place = tuple[str, Subject, str]
#: By kind and slot, the records of all calls, by their number.
_Calls = dict[tuple[str, str], dict[int, Record]]


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


def in_legacy_parts(new: Trace, legacy: Recording, rules: Rules) -> Trace:
    """Return a recording of the new side in as many calls as the legacy side made, as far as that can be.

    Args:
        new: the new side.
        legacy: the other side, in the new side's form.
        rules: give its modules and decisions their names on the new side.

    Raises:
        parity.traces.trace.TraceError: if a tensor cannot be read or is not what was recorded.
    """
    ours, theirs = _calls(legacy.records, translator(rules)), _calls(new.records, lambda record: record.name)
    made: dict[Record, list[Record]] = {}
    views: dict[str, Part] = {}
    numbers: dict[_Place, int] = {}
    for place in ours.keys() & theirs.keys():
        count = _count(ours[place])
        if count == _count(theirs[place]):
            continue
        parts = _in_parts(ours[place], theirs[place])
        if parts is None:
            continue
        numbers[place] = count
        made |= {record: [] for of_slot in theirs[place].values() for record in of_slot.values()}
        for first, call, view in parts:
            if isinstance(view, Part):
                tensor = view.made(new)
                like = replace(first, call=call, shape=tuple(tensor.shape), digest=content_digest(tensor))
                views[like.digest] = view
            else:
                like = replace(first, call=call)
            made[first].append(like)
    if not made:
        return new
    records = tuple(form for record in new.records for form in made.get(record, (record,)))
    coverage = {**new.coverage, **_counts(new, records, numbers)}
    return replace(new, records=records, views={**views, **new.views}, coverage=coverage)


def _calls(records: Iterable[Record], name_of: Callable[[Record], str]) -> dict[_Place, _Calls]:
    calls: dict[_Place, _Calls] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        if record.kind in _KINDS and record.name not in ("", RESULT) and not is_draw(record):
            place = record.phase, Kind(record.kind).subject, name_of(record)
            calls[place][record.kind, record.slot][record.call] = record
    return calls


def _count(calls: _Calls) -> int:
    return len({number for of_slot in calls.values() for number in of_slot})


def _in_parts(ours: _Calls, theirs: _Calls) -> list[tuple[Record, int, Part | None]] | None:
    """Return a first record, number of the call and what it is of each part; None if the calls are no parts of a whole.

    What is no tensor is the same for all parts.
    """
    found: list[tuple[Record, int, Part | None]] = []
    counts = _count(ours), _count(theirs)
    for (kind, slot), records in theirs.items():
        twins = ours.get((kind, slot)) or _only_other(kind, ours, theirs)
        one, two = ([of[call] for call in sorted(of)] for of in (twins or {}, records))
        if kind in FLOW and not twins:
            found += [(record, call, None) for call, record in records.items()]  # told by itself
            continue
        if (len(one), len(two)) != counts:
            return None
        if not any(record.shape for record in (*one, *two)):
            if len({record.digest for record in two}) != 1:
                return None
            found += [(two[0], call, None) for call in range(len(one))]
            continue
        parts = next(_parts(one, two), None)
        if parts is None:
            return None
        found += [(two[0], call, part) for call, part in enumerate(parts)]
    return found


def _only_other(kind: str, ours: _Calls, theirs: _Calls) -> dict[int, Record] | None:
    """Return the records of the one slot of a kind that is called otherwise on the other side; None if there are more."""
    names = [{slot for of, slot in calls if of == kind} for calls in (ours, theirs)]
    lone, other = names[0] - names[1], names[1] - names[0]
    return ours[kind, lone.pop()] if len(lone) == len(other) == 1 else None


def _parts(ours: Sequence[Record], theirs: Sequence[Record]) -> Iterator[list[Part]]:
    """Yield how the new side's tensors make the legacy side's, for each dimension along which they do."""
    dims = max(len(record.shape) for record in (*ours, *theirs))
    for dim in range(dims):
        one, two = ([_with_dim(record.shape, dim, dims) for record in side] for side in (ours, theirs))
        if len({shape[:dim] + shape[dim + 1 :] for shape in (*one, *two)}) != 1:
            continue
        lengths = [[shape[dim] for shape in side] for side in (one, two)]
        if sum(lengths[0]) == sum(lengths[1]):
            starts = accumulate(lengths[0][:-1], initial=0)
            stacked = len(theirs[0].shape) < dims
            yield [
                Part(tuple(theirs), dim, stacked, start, length if len(record.shape) == dims else None)
                for record, start, length in zip(ours, starts, lengths[0])
            ]


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
