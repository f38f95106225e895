"""What has no twin, a line for each thing rather than each record, and what may be written about it in ``family.py``."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass

from legacy_adapters.correspondence import MODULE
from legacy_adapters.ground.words import counted
from legacy_adapters.training.phases import step_of

from ..comparing.compare import EXACT
from ..comparing.coverage import SIDES
from ..comparing.pairing import LEGACY, NEW, Unpaired
from ..traces.kinds import Kind, Subject, Turn
from ..verdict.verdict import Verdict

_MOST = 15
#: What an alias calls what a record names.
_OF = {Subject.MODULE: MODULE, Subject.TERM: "loss", Subject.TAP: "tap"}


@dataclass(frozen=True)
class _Lone:
    """Things of one side whose names differ in numbers only.

    Attributes:
        side: that has them.
        subject: what they are.
        pattern: their names, with ``*`` for a number.
    """

    side: str
    subject: Subject
    pattern: str


def things_and_aliases(verdict: Verdict) -> tuple[list[str], list[str]]:
    """Return what has no twin, a text for each thing, and the aliases that may pair some of them."""
    groups: dict[_Lone, list[Unpaired]] = defaultdict(list)
    for item in verdict.coverage.unaccounted:
        subject = Kind(item.record.kind).subject
        groups[_Lone(item.side, subject, _pattern(item.record.name))].append(item)
    return [_told(lone, items) for lone, items in groups.items()], _aliases(verdict, groups)


def lone_lines(verdict: Verdict) -> list[str]:
    """Return a line for each thing without a twin, then the aliases that may pair some of them; nothing without any."""
    things, aliases = things_and_aliases(verdict)
    lines = [f"  without a twin: {thing}" for thing in things[:_MOST]]
    if len(things) > _MOST:
        lines.append(f"  and {len(things) - _MOST} more things without a twin")
    if things:
        lines.append("  (each record stands in --json, and in report.json of --out)")
    return [*lines, *(f"  perhaps one thing: {alias}" for alias in aliases)]


def backward_lines(verdict: Verdict) -> list[str]:
    """Say what to try where all that is computed forward has the same bits and gradients have not; else nothing."""
    rejected = [comparison.pair.new for comparison in verdict.comparisons if not comparison.accepted]
    if verdict.tolerance.name != EXACT or not rejected or verdict.initial:
        return []
    if any(Kind(record.kind).turn < Turn.BACKWARD or step_of(record.phase) not in (None, 1) for record in rejected):
        return []
    return [
        "all that is computed forward is bit-identical, gradients are not: code that adds them in another order, as that "
        "of a weight taken apart, gives other bits; --tolerance derived tells this from an error"
    ]


def _pattern(name: str) -> str:
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)


def _told(lone: _Lone, items: list[Unpaired]) -> str:
    names = {item.record.name for item in items}
    phases = ", ".join(dict.fromkeys(item.record.phase for item in items))
    what = f"{lone.subject.value} `{lone.pattern if len(names) > 1 else items[0].record.name}` of the {lone.side} side"
    return f"{what} ({counted(len(items), 'record')}, {phases})"


def _aliases(verdict: Verdict, groups: Mapping[_Lone, list[Unpaired]]) -> list[str]:
    """Return aliases for things without a twin that are alike and unlike all others: in what they recorded, or else in
    what they are, then also if all that one side recorded was compared elsewhere.
    """
    texts = []
    for subject, of in _OF.items():
        lone = {
            side: {one.pattern: items for one, items in groups.items() if (one.side, one.subject) == (side, subject)}
            for side in SIDES
        }
        pairs = _alike({side: {name: _records(items) for name, items in lone[side].items()} for side in SIDES})
        known = {side: _known(verdict, side, subject, lone[side]) for side in SIDES}
        left = {side: known[side].keys() - {pair[side] for pair in pairs} for side in SIDES}
        pairs += _alike({side: {name: known[side][name] for name in sorted(left[side])} for side in SIDES})
        for pair in pairs:
            if any(pair[side] in lone[side] for side in SIDES) and _are_of_one_kind(pair, known):
                more = "" if subject is Subject.MODULE else f', of="{of}"'
                texts.append(f'Alias("{pair[LEGACY]}", "{pair[NEW]}"{more})')
    return texts


def _alike(kinds: Mapping[str, Mapping[str, Hashable]]) -> list[dict[str, str]]:
    """Pair, by side, names of one kind that no other of either side has."""
    counts = {side: Counter(kinds[side].values()) for side in SIDES}
    only = {side: {kind: name for name, kind in kinds[side].items() if counts[side][kind] == 1} for side in SIDES}
    return [{LEGACY: name, NEW: only[NEW][kind]} for kind, name in only[LEGACY].items() if kind in only[NEW]]


def _are_of_one_kind(pair: Mapping[str, str], known: Mapping[str, Mapping[str, Hashable]]) -> bool:
    return known[LEGACY][pair[LEGACY]] == known[NEW][pair[NEW]]


def _records(items: Iterable[Unpaired]) -> Hashable:
    """Return what is told of records whose contents may differ by rounding; of loss terms, which are alike, contents."""
    records = [item.record for item in items]
    is_term = Kind(records[0].kind) is Kind.LOSS
    return tuple(sorted((r.phase, r.kind, r.shape, r.digest if is_term else "") for r in records))


def _known(verdict: Verdict, side: str, subject: Subject, patterns: Collection[str]) -> dict[str, Hashable]:
    """Return the classes of a side's modules without a twin, by pattern; other things are all of one kind."""
    if subject is not Subject.MODULE:
        return dict.fromkeys(patterns, ())
    classes, found = verdict.classes[side], defaultdict(list)
    for name in {*verdict.coverage.lone_modules[side], *(name for name in classes if _pattern(name) in patterns)}:
        found[_pattern(name)].append(classes.get(name, "").rpartition(".")[2])
    return {pattern: tuple(sorted(names)) for pattern, names in sorted(found.items())}
