"""Account for records without a twin that show nothing of their own: what they hold is compared elsewhere.

A refactoring may insert an ``nn.Identity``, wrap a layer, make a module of a function, hand on one more argument or
call a layer again on what it had before. The other side has no such record, but all that it could show wrong is seen in
others: a module's inputs and outputs are looked at only to find out where values part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import torch

from legacy_adapters.recording.trace_writer import Key, Record, content_digest, zeros_digest
from legacy_adapters.recording.values import joined

from ..comparing.compare import Comparison
from ..comparing.pairing import LEGACY, NEW, Unpaired
from ..comparing.twins import numel
from ..decisions.kinds import is_draw
from ..traces.kinds import FLOW, INPUTS, OF_METHODS, OF_MODULES, OF_TAPS, OUTPUTS, Kind, Turn
from ..traces.shard import TORCH_DTYPES

#: Values of the way forward.
_VALUES = frozenset(kind for kind in Kind if kind.turn is Turn.FORWARD) - OF_METHODS
#: What shows what a module's results become.
_OUTCOMES = frozenset((Kind.MODULE_OUT, Kind.TAP, Kind.LOSS))
_COMMON = (0.0, -0.0, 0.5, 1.0, -1.0, 2.0)
REPEATS = "its values are those of records that are equal on both sides"
GRADIENTS = "the gradients of all parameters are equal"
UNUSED = "an output that the new side leaves out; all that is computed is equal without it"
GROUPED = "the same tensors in another grouping; all that is computed is equal"
REGROUPED = "of a module whose parameters the rules change; these are compared, and what is computed with its results"
ARGUMENT = "the same tensor as another argument of the call, which the new side's module takes once"
DRAWN = "a draw by another function; random states are equal, and all that is computed"
DIVIDED = "a call of a module without weights on one side only; all that is computed is equal"
NUMBER = "a number that only one side passes; what is computed with it is compared"

#: side, phase and name of a call, its number.
_Call = tuple[str, str, str, int]


@dataclass(frozen=True)
class Known:
    """What is known of two recordings and their pairing.

    Attributes:
        keys: of the pairing: what the legacy side's records are called on the new side; empty if nothing is renamed.
        cut_off: keys of the legacy side's gradients whose tensors need none on the new side.
        regrouped: by side, paths of the modules whose parameters the rules change.
        parameters: what the new side's modules take, by their paths, as far as it is known.
        with_weights: by side, paths of the modules that have weights of their own; empty if they are not known.
    """

    keys: Mapping[Key, Key] = field(default_factory=dict)
    cut_off: Collection[Key] = ()
    regrouped: Mapping[str, Collection[str]] = field(default_factory=dict)
    parameters: Mapping[str, Collection[str]] = field(default_factory=dict)
    with_weights: Mapping[str, Collection[str]] = field(default_factory=dict)


def explained(
    unpaired: Sequence[Unpaired], comparisons: Iterable[Comparison], known: Known
) -> tuple[Unpaired, ...]:
    """Return ``unpaired``, those that are accounted for by what was compared with the reason.

    - A call that only one side makes, of which every output is a value that was compared and accepted elsewhere in the
      same phase, or is excluded with a reason while others are such values; a decision likewise, with what it rests on.
    - An argument that only one side gives a module that both call: a number; on the new side also a tensor that was
      compared elsewhere. An argument that the new side leaves out stays unaccounted for.
    - An output that only the new side returns, if it was compared elsewhere.
    - Where all else is equal, an argument or output of one call that is a tensor on one side and a list of as many
      elements on the other, such as the boxes of all layers.
    - Where all else is equal, the gradients of all parameters included, an output that the new side leaves out of a
      call that gives others, such as the weights of an attention: nothing is computed with it, or that would show.
    - Where all else is equal, the gradients of all parameters included, a gradient that flows over the border of a call
      on one side only: autograd goes around what is overwritten in place and is a view. Not if the tensor of the other
      side is cut off.
    - Where all else is equal, the gradients of all parameters included, all records of a call of a module without weights
      of its own, which makes something of what it is given and is used in training: code of the other side does that, as
      ``F.dropout`` does for ``nn.Dropout``, or calls the modules inside by itself.
    - Where all else is equal, random states included, a draw that only one side makes by a function that is watched.
    - An argument of the legacy side that is the same tensor as another one of the call, which has a twin, where the new
      side's module has no parameter of that name: as query, key and value of a self-attention.
    - What a module takes and gives whose parameters the rules change, so that it is another number of modules on the
      other side, or computes in another shape: its parameters are compared, and what is computed with its results.

    Whole numbers, some that come up everywhere and tensors of zeros equal others by chance and prove nothing.

    Args:
        unpaired: records without a twin.
        comparisons: of all pairs.
        known: of the same recordings.
    """
    if all(item.exclusion is not None for item in unpaired):
        return tuple(unpaired)
    comparisons = tuple(comparisons)
    items = _taken_once(_by_content(unpaired, comparisons), comparisons, known)
    of_changed = set(_regrouped(items, comparisons, known.regrouped))
    items = tuple(
        replace(item, explained=REGROUPED)
        if not item.is_accounted and (item.side, item.record.key) in of_changed
        else item
        for item in items
    )
    if not all(c.accepted for c in comparisons if c.pair.new.kind not in OF_METHODS):
        return items
    proven = {c.pair.new.phase for c in comparisons if c.pair.new.kind == Kind.GRAD}
    harmless = _harmless(items, comparisons, known, bool(proven))
    is_open = [not item.is_accounted and (item.side, item.record.key) not in harmless for item in items]
    if any(lone and item.record.kind not in FLOW for lone, item in zip(is_open, items)):
        return items

    def reason(item: Unpaired) -> str:
        is_gradient = item.record.phase in proven and item.record.key not in known.cut_off
        return harmless.get((item.side, item.record.key), GRADIENTS if is_gradient else "")

    return tuple(item if item.is_accounted else replace(item, explained=reason(item)) for item in items)


def excusable(
    unpaired: Sequence[Unpaired], comparisons: Sequence[Comparison], known: Known
) -> frozenset[tuple[str, Key]]:
    """Return side and key of what would be accounted for if all else were equal; arguments as of :func:`explained`."""
    return frozenset(_harmless(unpaired, comparisons, known, True))


def _by_content(unpaired: Sequence[Unpaired], comparisons: Sequence[Comparison]) -> tuple[Unpaired, ...]:
    """Explain what holds values that were compared elsewhere, call by call."""
    known, paired = _known(comparisons)
    calls: dict[_Call, list[Record]] = defaultdict(list)
    for item in unpaired:
        if item.exclusion is None:
            calls[_call(item.side, item.record)].append(item.record)
    reasons = {
        (call[0], record.key): _reason(call, record, records, known[call[0]], call in paired)
        for call, records in calls.items()
        for record in records
    }
    return tuple(
        item if item.exclusion is not None else replace(item, explained=reasons[item.side, item.record.key])
        for item in unpaired
    )


def _taken_once(
    items: tuple[Unpaired, ...], comparisons: Sequence[Comparison], known: Known
) -> tuple[Unpaired, ...]:
    """Explain arguments, and their gradients, that the new side's module is given under another name already."""
    if not known.parameters:
        return items
    twins = {
        (*c.pair.legacy.key[:4], c.pair.legacy.digest)
        for c in comparisons if c.accepted and c.pair.legacy.kind == Kind.MODULE_IN
    }  # fmt: skip
    repeats = set()
    for item in items:
        record = item.record
        if item.side == LEGACY and record.kind == Kind.MODULE_IN and record.shape and not item.is_accounted:
            taken = known.parameters.get(known.keys.get(record.key, record.key)[2])
            is_given = (*record.key[:4], record.digest) in twins and not _is_trivial(record)
            if taken is not None and is_given and record.slot.split(".")[0] not in taken:
                repeats.add((_call(LEGACY, record), record.slot))
    return tuple(
        replace(item, explained=ARGUMENT)
        if item.side == LEGACY and item.record.kind in INPUTS and not item.is_accounted
        and (_call(LEGACY, item.record), item.record.slot) in repeats
        else item
        for item in items
    )  # fmt: skip


def _harmless(
    unpaired: Sequence[Unpaired], comparisons: Sequence[Comparison], known: Known, is_proven: bool
) -> dict[tuple[str, Key], str]:
    """Explain, by side and key, what is harmless where all else is equal; ``is_proven`` if all gradients are, too."""
    harmless = dict.fromkeys(_grouped((item for item in unpaired if item.exclusion is None), known.keys), GROUPED)
    with_outputs = {_call(side, record) for side, record in _outputs(comparisons)}
    for item in unpaired:
        is_output = item.side == LEGACY and item.record.kind == Kind.MODULE_OUT
        if is_proven and is_output and _call(LEGACY, item.record) in with_outputs:
            harmless.setdefault((LEGACY, item.record.key), UNUSED)
    harmless.update(dict.fromkeys(_lone_draws(unpaired, comparisons), DRAWN))
    if is_proven and known.with_weights:
        harmless.update(dict.fromkeys(_without_weights(unpaired, comparisons, known.with_weights), DIVIDED))
    return harmless


def _without_weights(
    unpaired: Iterable[Unpaired], comparisons: Iterable[Comparison], with_weights: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, Key]]:
    """Yield side and key of all records of calls without a twin that need none, see :func:`explained`.

    None of the modules inside may be called on one side only for another reason, for then this work is not done at all. A
    gradient must come back to the module in training, or what it makes may lead nowhere. A call that gives back what it is
    given shows nothing: whether the other side leaves it out cannot be told. Not so if that is what such a call before
    makes, as an activation before dropout in inference.
    """
    _, paired = _known(comparisons)
    calls: dict[_Call, list[Record]] = defaultdict(list)
    used, is_open = set(), set()
    for item in unpaired:
        if item.record.kind in OF_MODULES and item.exclusion is None:
            calls[_call(item.side, item.record)].append(item.record)
            if not item.explained:
                is_open.add(_call(item.side, item.record))
            if item.record.name and item.record.kind == Kind.OUT_GRAD and not _is_trivial(item.record):
                used.add((item.side, item.record.name))
    made: set[tuple[str, str, str]] = set()
    found: dict[_Call, list[Record]] = {}
    for call, records in calls.items():
        side, phase, name, _ = call
        given = {record.digest for record in records if record.kind == Kind.MODULE_IN}
        outputs = {record.digest for record in records if record.kind == Kind.MODULE_OUT}
        known = with_weights[side]  # of a recording without weights nothing is known
        shows = outputs - given or any((side, phase, digest) in made for digest in outputs)
        if known and name not in known and (side, name) in used and call not in paired and given and shows:
            made.update((side, phase, digest) for digest in outputs)
            found[call] = records
    # of what is not called at all, nothing is done by others
    left = {call[:3] for call in is_open - paired if call not in found}
    for call, records in found.items():
        if not any(one[:2] == call[:2] and one[2].startswith(call[2] + ".") for one in left):
            yield from ((call[0], record.key) for record in records)


def _lone_draws(unpaired: Iterable[Unpaired], comparisons: Iterable[Comparison]) -> Iterator[tuple[str, Key]]:
    """Yield side and key of all records of draws that have no twin, in phases in which random states were compared."""
    pairs = [comparison.pair for comparison in comparisons]
    with_states = {pair.new.phase for pair in pairs if pair.new.kind == Kind.RANDOM}
    drawn = {_call(side, of) for pair in pairs for side, of in ((LEGACY, pair.legacy), (NEW, pair.new)) if is_draw(of)}
    for item in unpaired:
        if is_draw(item.record) and item.record.phase in with_states and _call(item.side, item.record) not in drawn:
            yield item.side, item.record.key


def _regrouped(
    unpaired: Iterable[Unpaired], comparisons: Iterable[Comparison], modules: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, Key]]:
    """Yield side and key of what ``modules`` take and give in a phase in which outcomes were compared."""
    phases = {comparison.pair.new.phase for comparison in comparisons if comparison.pair.new.kind in _OUTCOMES}
    for item in unpaired:
        record = item.record
        if record.kind in OF_MODULES and record.name in modules.get(item.side, ()) and record.phase in phases:
            yield item.side, record.key


def _grouped(unpaired: Iterable[Unpaired], keys: Mapping[Key, Key]) -> Iterator[tuple[str, Key]]:
    """Yield side and key of what one call passes as one tensor on one side and as a list of tensors on the other.

    Where one side has ``x`` the other has ``x.0``, ``x.1`` and so on, all of one shape, which ``x`` has behind its
    first dimension.
    """
    slots: dict[tuple, dict[str, dict[str, Record]]] = defaultdict(lambda: {LEGACY: {}, NEW: {}})
    for item in unpaired:
        record = item.record
        if record.kind in (Kind.MODULE_IN, Kind.MODULE_OUT):
            call = keys.get(record.key, record.key)[:4] if item.side == LEGACY else record.key[:4]
            root, _, index = record.slot.rpartition(".")
            slots[*call, root if index.isdigit() else record.slot][item.side][record.slot] = record
    for (*_, slot), sides in slots.items():
        for one, other in ((LEGACY, NEW), (NEW, LEGACY)):
            whole, parts = sides[one].get(slot), sides[other]
            listed = [parts.get(joined(slot, str(index))) for index in range(len(parts))]
            if whole is None or len(sides[one]) != 1 or None in listed or whole.shape[:1] != (len(parts),):
                continue
            if all((part.dtype, part.shape) == (whole.dtype, whole.shape[1:]) for part in listed):
                yield one, whole.key
                yield from ((other, part.key) for part in listed)


def _outputs(comparisons: Iterable[Comparison]) -> Iterator[tuple[str, Record]]:
    """Yield the legacy side's outputs that have a twin."""
    for comparison in comparisons:
        if comparison.pair.legacy.kind == Kind.MODULE_OUT:
            yield LEGACY, comparison.pair.legacy


def _known(comparisons: Iterable[Comparison]) -> tuple[dict[str, set[tuple[str, str]]], set[_Call]]:
    """Return phase and digest of all accepted values of each side, and the calls that have a twin."""
    known: dict[str, set[tuple[str, str]]] = {LEGACY: set(), NEW: set()}
    paired = set()
    for comparison in comparisons:
        for side, record in ((LEGACY, comparison.pair.legacy), (NEW, comparison.pair.new)):
            if record.kind not in OF_METHODS:  # which have the name of a module, too
                paired.add(_call(side, record))
            if comparison.accepted and record.kind in _VALUES:
                known[side].add((record.phase, record.digest))
    return known, paired


def _call(side: str, record: Record) -> _Call:
    return side, record.phase, record.name, record.call


def _reason(
    call: _Call, record: Record, records: Sequence[Record], known: set[tuple[str, str]], has_twin: bool
) -> str:
    side, phase = call[:2]
    same = {other.key: not numel(other) or (phase, other.digest) in known for other in records}
    seen = {other.key: not numel(other) or (same[other.key] and not _is_trivial(other)) for other in records}
    if record.kind in OF_TAPS:
        # what it rests on proves it; the decision may be a single number
        telling = any(numel(other) and seen[other.key] for other in records)
        return REPEATS if not has_twin and telling and all(same.values()) else ""
    if record.kind not in OF_MODULES:
        return ""
    if not has_twin:
        outputs = [other for other in records if other.kind == Kind.MODULE_OUT]
        return REPEATS if outputs and all(seen[other.key] for other in outputs) else ""
    value, _ = INPUTS if record.kind in INPUTS else OUTPUTS
    if record.kind != value:  # a gradient is explained where its value is
        twin = next((other for other in records if (other.kind, other.slot) == (value, record.slot)), None)
        return "" if twin is None else _reason(call, twin, records, known, has_twin)
    if value is Kind.MODULE_IN and not record.shape:
        return NUMBER
    return REPEATS if seen[record.key] and side == NEW else ""


def _is_trivial(record: Record) -> bool:
    if numel(record) > 1:
        return record.digest == zeros_digest(record.dtype, record.shape)
    return not record.is_float or record.digest in _common_digests(record.dtype, record.shape)


@cache
def _common_digests(dtype: str, shape: tuple[int, ...]) -> frozenset[str]:
    """Return the digests of single numbers that come up everywhere."""
    numbers = (torch.full(shape, value, dtype=TORCH_DTYPES[dtype]) for value in _COMMON)
    return frozenset(map(content_digest, numbers))
