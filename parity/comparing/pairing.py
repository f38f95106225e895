"""Pair the records of a legacy trace with those of a new one, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from converters.rules.mapping import Mapping as NameMapping
from legacy_adapters.correspondence import LOSS, TAP, Exclusion
from legacy_adapters.ground.names import LEGACY, NEW
from legacy_adapters.recording.trace_writer import Key, Record

from ..traces.kinds import OF_METHODS, OF_MODULES, Kind, Subject
from .converted import twin_name
from .twins import Likeness, new_keys

#: What an alias may name, by what it calls that; modules are looked up together with the rules.
_ALIASED = {Subject.TERM: LOSS, Subject.TAP: TAP}


class DuplicateRecordError(ValueError):
    """One side recorded the same thing twice, so that pairing by name is not possible."""


@dataclass(frozen=True)
class Unpaired:
    """A record without a twin.

    Attributes:
        side: that has it.
        record: of that side.
        exclusion: says why that is right; None if none does.
        explained: why it needs none: what it shows is compared elsewhere; empty if it is not.
    """

    side: str
    record: Record
    exclusion: Exclusion | None
    explained: str = ""

    @property
    def is_accounted(self) -> bool:
        return self.exclusion is not None or bool(self.explained)


@dataclass(frozen=True)
class Pair:
    """A legacy record and its twin.

    Attributes:
        legacy: the record.
        new: its twin.
        scope: the legacy record's scope under its name on the new side.
    """

    legacy: Record
    new: Record
    scope: str = ""


@dataclass(frozen=True)
class Pairing:
    """All records of two traces: pairs in legacy recording order, and the rest.

    Attributes:
        pairs: with a twin.
        unpaired: without.
        keys: for the key of every legacy record the one that its twin has, or would have, on the new side.
    """

    pairs: tuple[Pair, ...]
    unpaired: tuple[Unpaired, ...]
    keys: dict[Key, Key] = field(default_factory=dict, repr=False)


def pair(
    legacy: tuple[Record, ...],
    new: tuple[Record, ...],
    mapping: NameMapping,
    exclusions: tuple[Exclusion, ...],
    likeness: Likeness | None = None,
    keys: Mapping[Key, Key] | None = None,
    changed: Collection[str] = (),
    is_turned: Callable[[Record, Record], bool] = lambda one, two: False,
    has_no_twin: Callable[[Record, Record], bool] = lambda one, two: False,
) -> Pairing:
    """Pair by phase, kind and name; calls, decisions and slots as in :mod:`.twins`.

    Module paths and parameter names of the legacy side are translated by the rules that convert the weights; taps, loss
    terms and modules without parameters by the family's aliases, without one they have the same names on both sides.
    Calls of modules that an alias joins pair as if they were calls of one module. Parameters that a rule splits, joins
    or changes otherwise pair in a recording that :func:`.converted.in_new_form` gives, and their modules only if each
    is one on the other side, too.
    How code is divided into methods is nobody's business: their records pair where both sides have them, and are left
    out otherwise.

    Args:
        legacy: the legacy side's records, parameters as the new side has them.
        new: the new side's records.
        mapping: names on the new side.
        exclusions: what needs no twin.
        likeness: as in :func:`.twins.new_keys`.
        keys: of another pairing, to be kept, as :attr:`Pairing.keys`; None to pair by content.
        changed: legacy modules that may compute in another shape, for a rule changes their parameters: what has
            another shape has no twin.
        is_turned: tells of what such a module takes or gives whether it is laid out otherwise in the same shape; then it
            has no twin, either.
        has_no_twin: tells of two records of one name whether they are of other calls all the same: :mod:`.enclosed`.

    Raises:
        DuplicateRecordError: if one side has two records of one key.
    """
    translate = translator(mapping)
    twins = _by_key(new, lambda record: (record.name, record.call))
    translated = _by_key(legacy, _renumbered(legacy, translate, mapping))
    if keys is None:
        by_content = new_keys(translated, twins, likeness, partial(mapping.other_names.joined, NEW))
        keys = {record.key: by_content[key] for key, record in translated.items()}
    ours = {keys.get(record.key, key): record for key, record in translated.items()}
    scopes = {scope: mapping.map_module(scope) or scope for scope in {record.scope for record in legacy}}
    pairs = tuple(Pair(record, twins[key], scopes[record.scope]) for key, record in ours.items() if key in twins)
    other = [
        one for one in pairs
        if has_no_twin(one.legacy, one.new) or (
            one.legacy.kind in OF_MODULES and one.legacy.name in changed
            and (one.legacy.shape != one.new.shape or is_turned(one.legacy, one.new))
        )
    ]  # fmt: skip
    split = {id(one) for one in other}
    pairs = tuple(one for one in pairs if id(one) not in split)
    lonely: list[tuple[str, Record]] = [(LEGACY, record) for key, record in ours.items() if key not in twins]
    lonely += [(NEW, record) for key, record in twins.items() if key not in ours]
    lonely += [item for one in other for item in ((LEGACY, one.legacy), (NEW, one.new))]
    passed = {side: [r for s, r in lonely if s == side and r.kind == Kind.METHOD_IN] for side in (LEGACY, NEW)}
    more = _by_position(passed[LEGACY], passed[NEW], translate)
    if more:
        position = {id(record): index for index, record in enumerate(legacy)}
        pairs += tuple(Pair(one, two, scopes[one.scope]) for one, two in more)
        pairs = tuple(sorted(pairs, key=lambda pair: position[id(pair.legacy)]))
    lonely = [(side, record) for side, record in lonely if record.kind not in OF_METHODS]
    return Pairing(
        pairs,
        tuple(Unpaired(side, record, _exclusion(exclusions, side, record)) for side, record in lonely),
        dict(keys),
    )


def _by_position(
    legacy: list[Record], new: list[Record], name_of: Callable[[Record], str]
) -> list[tuple[Record, Record]]:
    """Pair tensors given to one call of a method whose parameters have other names, in their order, by shape."""
    calls: dict[tuple, tuple[list[Record], list[Record]]] = {}
    for side, records in enumerate((legacy, new)):
        for record in records:
            method, _, parameter = record.slot.partition(".")
            if record.shape and "." not in parameter:
                name = record.name if side else name_of(record)
                calls.setdefault((record.phase, name, record.call, method), ([], []))[side].append(record)
    return [
        (one, two)
        for ours, theirs in calls.values()
        for one, two in zip(ours, theirs)
        if (one.dtype, one.shape) == (two.dtype, two.shape)
    ]


def _renumbered(
    legacy: tuple[Record, ...], name_of: Callable[[Record], str], mapping: NameMapping
) -> Callable[[Record], tuple[str, int]]:
    """Return a function that gives a legacy record's name on the new side and its call, so that no two calls are one.

    Calls of modules that an alias joins are numbered through, in the order in which they were made.
    """
    numbers: dict[tuple[str, str, str, int], int] = {}
    calls: Counter[tuple[str, str]] = Counter()
    joined: dict[str, bool] = {}
    for record in legacy:
        if record.kind not in OF_MODULES:
            continue
        if record.name not in joined:
            joined[record.name] = mapping.other_names.joins(LEGACY, record.name)
        place = (record.phase, name_of(record), record.name, record.call)
        if joined[record.name] and place not in numbers:
            numbers[place] = calls[place[:2]]
            calls[place[:2]] += 1

    def renumbered(record: Record) -> tuple[str, int]:
        name = name_of(record)
        is_joined = record.kind in OF_MODULES and joined[record.name]
        return name, numbers[record.phase, name, record.name, record.call] if is_joined else record.call

    return renumbered


def translator(mapping: NameMapping) -> Callable[[Record], str]:
    """Return a function that gives the name a legacy record has on the new side."""
    cache: dict[tuple[str, str], str] = {}

    def translate(record: Record) -> str:
        key = (record.kind, record.name)
        if key not in cache:
            name = _new_name(Kind(record.kind).subject, record, mapping)
            cache[key] = record.name if name is None else name
        return cache[key]

    return translate


def _new_name(subject: Subject, record: Record, mapping: NameMapping) -> str | None:
    """Return the name of a legacy record on the new side; None if nothing gives it another."""
    if subject is Subject.MODULE:
        return mapping.map_module(record.name)
    if subject is Subject.PARAMETER:
        return twin_name(record, mapping)
    return mapping.other_names.new_name(_ALIASED[subject], record.name) if subject in _ALIASED else None


def _by_key(records: tuple[Record, ...], place_of: Callable[[Record], tuple[str, int]]) -> dict[Key, Record]:
    by_key: dict[Key, Record] = {}
    for record in records:
        key = (record.phase, record.kind, *place_of(record), record.slot)
        if key in by_key:
            raise DuplicateRecordError(f"Two records of one side have the key {key}; the trace is damaged.")
        by_key[key] = record
    return by_key


def _exclusion(exclusions: tuple[Exclusion, ...], side: str, record: Record) -> Exclusion | None:
    return next((exclusion for exclusion in exclusions if exclusion.covers(side, record)), None)
