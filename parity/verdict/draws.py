"""Random states: whether those of two runs can be compared, and which code of the new side leaves another one.

Replayed draws hide what a side would have drawn by itself; the states of its generators show it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from legacy_adapters.recording.trace_writer import Record

from ..comparing.compare import Comparison
from ..decisions.draw import Draw
from ..decisions.kinds import kind_of
from ..traces.kinds import OF_TAPS, Kind
from ..traces.trace import Recording
from .blame import DETECTOR, Divergence


def comparable(one: Recording, two: Recording) -> bool:
    """Tell whether equal code leaves equal states: generators are a matter of torch's version, and of the device."""
    versions = [str(side.provenance.get("torch")).partition("+")[0] for side in (one, two)]
    devices = [str(side.provenance.get("device")).partition(":")[0] for side in (one, two)]
    return versions[0] == versions[1] and devices[0] == devices[1]


def without(records: Sequence[Record]) -> tuple[Record, ...]:
    """Leave out the random states."""
    return tuple(record for record in records if record.kind != Kind.RANDOM)


def first_strayed(
    legacy: Sequence[Record], new: Sequence[Record], comparisons: Sequence[Comparison]
) -> Divergence | None:
    """Name the code that leaves another random state than the legacy side, if that came before all else that differs.

    Args:
        legacy: records, in recording order.
        new: records, in recording order.
        comparisons: of all pairs.
    """
    strayed = _strayed(legacy, new)
    if strayed is None:
        return None
    position = {record.key: index for index, record in enumerate(new)}
    draws = _draws(new)
    rejected = [c.pair.new for c in comparisons if not c.accepted and c.pair.new.kind != Kind.RANDOM]
    # a draw that asks for something else is recorded before the state that it leaves
    rejected = [record for record in rejected if _call(record) not in draws]
    if any(position[record.key] < position[strayed.key] for record in rejected):
        return None
    code = f"The code of {f'`{strayed.scope}`' if strayed.scope else DETECTOR}"
    what = "draws other random numbers than the legacy side, or seeds anew"
    text = f"{code} {what} ({strayed.name}'s generator, {strayed.phase} phase)."
    return Divergence(strayed.scope or DETECTOR, None, text, None)


def _draws(records: Sequence[Record]) -> set[tuple[str, str, int]]:
    """Return the calls of taps that are draws: they rest on no values that are decided on."""
    slots: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for record in records:
        if record.kind == Kind.BASIS:
            slots[_call(record)].add(record.slot)
    return {call for call, of_call in slots.items() if isinstance(kind_of(of_call), Draw)}


def _call(record: Record) -> tuple[str, str, int] | None:
    return (record.phase, record.name, record.call) if record.kind in OF_TAPS else None


def _strayed(legacy: Sequence[Record], new: Sequence[Record]) -> Record | None:
    """Return the new side's first state, in its order, that is not the legacy side's next one."""
    states: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in legacy:
        if record.kind == Kind.RANDOM and not record.slot:
            states[record.phase, record.name].append(record.digest)
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for record in new:
        if record.kind == Kind.RANDOM and not record.slot:
            expected, number = states[record.phase, record.name], seen[record.phase, record.name]
            if expected[number : number + 1] != [record.digest]:
                return record
            seen[record.phase, record.name] += 1
    return None
