"""Account for what was compared and what was not: leaf calls, records, modules, gradients, losses."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from converters.rules.mapping import Mapping as NameMapping
from legacy_adapters.recording.trace_writer import Key
from legacy_adapters.training.phases import step_of

from ..traces.kinds import Kind
from ..traces.trace import Recording
from .converted import new_names, own_names
from .forms import PERMUTED, SELECTED
from .pairing import LEGACY, NEW, Unpaired
from .regrouped import Regrouping

SIDES = (LEGACY, NEW)
_OTHER = {LEGACY: NEW, NEW: LEGACY}
Calls = Counter[tuple[str, str]]  # by phase and module path


@dataclass(frozen=True)
class LoneCalls:
    """Calls of a module without children that the other side did not make.

    Attributes:
        side: the side that made them.
        phase: of the run.
        name: module path on that side.
        calls: number of calls more than on the other side, those covered by exclusions not counted.
    """

    side: str
    phase: str
    name: str
    calls: int


@dataclass(frozen=True)
class Coverage:
    """How much of the two sides was compared.

    Attributes:
        legacy_leaf_calls: calls of modules without children on the legacy side.
        paired_leaf_calls: those with a twin call on the new side.
        excluded_leaf_calls: calls on the legacy side of which an output is excluded and not seen in the module around.
        lone_calls: calls of either side without a twin and without an exclusion of all that they recorded.
        excluded_records: unpaired records covered by a written exclusion.
        explained_records: unpaired records whose values are compared elsewhere, see :mod:`.echoes`.
        unaccounted: unpaired records that are neither.
        never_executed: leaf modules of either side that never ran, by side, as the new side names them.
        lone_modules: modules of either side that the other does not have, run or not, by side.
        gradient_only_on: parameters that got a gradient on this side only, by side, as the new side names them.
        permuted: how many records were compared with their dimensions in another order, by that.
        selected: of how many records a part was compared, by which and why.
    """

    legacy_leaf_calls: int
    paired_leaf_calls: int
    excluded_leaf_calls: int
    lone_calls: tuple[LoneCalls, ...]
    excluded_records: tuple[Unpaired, ...]
    explained_records: tuple[Unpaired, ...]
    unaccounted: tuple[Unpaired, ...]
    never_executed: Mapping[str, tuple[str, ...]]
    lone_modules: Mapping[str, tuple[str, ...]]
    gradient_only_on: Mapping[str, tuple[str, ...]]
    permuted: Mapping[str, int]
    selected: Mapping[str, int]

    @property
    def enclosed_records(self) -> tuple[Unpaired, ...]:
        """Return the excluded records that are seen in what the module around them gives."""
        return tuple(item for item in self.excluded_records if item.exclusion is not None and item.exclusion.by)

    @property
    def gradients_on_one_side(self) -> tuple[str, ...]:
        """Return the parameters that got a gradient on one side only."""
        return tuple(sorted(name for names in self.gradient_only_on.values() for name in names))

    @property
    def losses_only_on(self) -> dict[str, tuple[str, ...]]:
        """Return the loss terms that one side has and the other lacks, by side."""
        lone = [item for item in self.unaccounted if item.record.kind == Kind.LOSS]
        return {side: tuple(dict.fromkeys(item.record.name for item in lone if item.side == side)) for side in SIDES}

    def missing_calls(self, side: str) -> int:
        """Return how many leaf calls of ``side`` have no twin."""
        return sum(lone.calls for lone in self.lone_calls if lone.side == side)


def cover(
    legacy: Recording,
    new: Recording,
    rules: NameMapping,
    unpaired: tuple[Unpaired, ...],
    regrouped: tuple[Regrouping, ...] = (),
    compared: Collection[Key] = (),
) -> Coverage:
    """Account for two recordings.

    Args:
        legacy: the legacy side.
        new: the new side.
        rules: give legacy modules and parameters their new names.
        unpaired: the records without a twin.
        regrouped: modules whose calls pair with those of several others.
        compared: keys of the legacy side's records that have a twin.
    """
    one_name = {side: partial(rules.other_names.joined, side) for side in SIDES}
    calls = {side: _calls(of, one_name[side]) for side, of in ((LEGACY, legacy), (NEW, new))}
    # what is a leaf here may be wrapped or have children there
    any_calls = {
        side: calls[side] + _calls(of, one_name[side], "inner_calls") for side, of in ((LEGACY, legacy), (NEW, new))
    }
    twins = {(phase, name): (phase, rules.map_module(name) or name) for phase, name in any_calls[LEGACY]}
    of_new = Counter({twin: any_calls[LEGACY][own] for own, twin in twins.items()})
    paired = {
        LEGACY: {own: min(count, any_calls[NEW][twins[own]]) for own, count in calls[LEGACY].items()},
        NEW: {twin: min(count, of_new[twin]) for twin, count in calls[NEW].items()},
    }
    for side, path, phase, count in _regrouped_calls(any_calls, regrouped):
        own = calls[side][phase, path]
        paired[side][phase, path] = min(own, max(count, paired[side].get((phase, path), 0)))
    permuted, selected = (
        Counter(text for *key, text in legacy.coverage.get(kind, ()) if tuple(key) in compared)
        for kind in (PERMUTED, SELECTED)
    )
    excluded, accounted = (
        {side: _calls_with(side, unpaired, covers, one_name[side]) for side in SIDES}
        for covers in (_is_excluded, _is_accounted)
    )
    lone = [
        *_lone(LEGACY, calls[LEGACY], paired[LEGACY], accounted[LEGACY], with_weights(legacy)),
        *_lone(NEW, calls[NEW], paired[NEW], accounted[NEW], with_weights(new), of_new),
    ]
    return Coverage(
        legacy_leaf_calls=calls[LEGACY].total(),
        paired_leaf_calls=sum(paired[LEGACY].values()),
        excluded_leaf_calls=sum(min(excluded[LEGACY][own], count) for own, count in calls[LEGACY].items()),
        lone_calls=tuple(lone),
        excluded_records=tuple(item for item in unpaired if item.exclusion is not None),
        explained_records=tuple(item for item in unpaired if item.explained),
        unaccounted=tuple(item for item in unpaired if not item.is_accounted),
        never_executed={
            LEGACY: tuple(rules.map_module(name) or name for name in legacy.coverage["never_executed"]),
            NEW: tuple(new.coverage["never_executed"]),
        },
        lone_modules=_lone_modules(legacy, new, rules, regrouped),
        gradient_only_on=_gradients(legacy, new, rules),
        permuted=permuted,
        selected=selected,
    )


def _regrouped_calls(
    calls: Mapping[str, Calls], regrouped: Iterable[Regrouping]
) -> Iterator[tuple[str, str, str, int]]:
    """Yield side, path and phase of every module that is another number of modules there, and how often all ran."""
    phases = dict.fromkeys(phase for side in SIDES for phase, _ in calls[side])
    for one in regrouped:
        for phase in phases:
            members = [(side, path) for side in SIDES for path in one.members[side]]
            count = min(calls[side][phase, path] for side, path in members)
            if count:
                yield from ((side, path, phase, count) for side in SIDES for path in one.lone[side])


def lost_records(recording: Recording, side: str) -> list[str]:
    """Return a sentence for each phase and kind of which a recording holds other records than its run counted."""
    counted = recording.coverage.get("records")
    if counted is None:
        return []
    held = Counter((record.phase, record.kind) for record in recording.records)
    expected = Counter({(entry["phase"], entry["kind"]): entry["count"] for entry in counted})
    return [
        f"The {side} run counted {expected[key]} records {key[1]} of phase {key[0]}, the recording holds {held[key]}."
        for key in sorted(expected.keys() | held.keys())
        if held[key] != expected[key]
    ]


def _calls(side: Recording, one_name: Callable[[str], str], which: str = "leaf_calls") -> Calls:
    """Count the calls of modules; of those whose calls pair together under the name that ``one_name`` gives."""
    calls: Calls = Counter()
    for entry in side.coverage.get(which, ()):
        calls[entry["phase"], one_name(entry["name"])] += entry["count"]
    return calls


def _is_excluded(item: Unpaired) -> bool:
    return item.exclusion is not None and not item.exclusion.by


def _is_accounted(item: Unpaired) -> bool:
    return item.is_accounted


def _calls_with(
    side: str, unpaired: Iterable[Unpaired], covers: Callable[[Unpaired], bool], one_name: Callable[[str], str]
) -> Calls:
    """Count the calls of a module of which an output is covered and no output is not."""
    outputs: dict[tuple[str, str, int], list[bool]] = defaultdict(list)
    for item in unpaired:
        record = item.record
        if item.side == side and record.kind == Kind.MODULE_OUT:
            outputs[record.phase, record.name, record.call].append(covers(item))
    return Counter((phase, one_name(name)) for (phase, name, _), covered in outputs.items() if all(covered))


def with_weights(side: Recording) -> set[str]:
    """Return the paths of the modules that have parameters or buffers of their own."""
    names = (name for record in side.records if record.kind == Kind.PARAM for name in own_names(record.name))
    return {name.rpartition(".")[0] for name in names}


def _lone(
    side: str, calls: Calls, paired: Mapping[tuple[str, str], int], covered: Calls, weighted: set[str],
    others: Mapping[tuple[str, str], int] | None = None,
) -> list[LoneCalls]:  # fmt: skip
    """Count the calls without a twin; ``others`` tells which modules the other side calls in a phase, too.

    Steps of a training record no calls. What a module without weights does is seen in losses, gradients and state, and
    so is one call more of a module that both sides call.
    """
    lone_calls = []
    for (phase, name), count in calls.items():
        missing = count - paired.get((phase, name), 0)
        left = missing - min(missing, covered[phase, name])
        is_seen = step_of(phase) is not None and (name not in weighted or bool((others or {}).get((phase, name))))
        if left and not is_seen:
            lone_calls.append(LoneCalls(side, phase, name, left))
    return lone_calls


def _lone_modules(
    legacy: Recording, new: Recording, rules: NameMapping, regrouped: Iterable[Regrouping]
) -> dict[str, tuple[str, ...]]:
    ours = {name: rules.map_module(name) or name for name in legacy.coverage.get("classes", {})}
    theirs = set(new.coverage.get("classes", {}))
    twins, one_name = set(ours.values()), partial(rules.other_names.joined, NEW)
    lone = {
        LEGACY: {name for name, twin in ours.items() if twin not in theirs},
        NEW: {name for name in theirs if one_name(name) not in twins},
    }
    for one in regrouped:
        if set(one.members[LEGACY]) <= set(ours) and set(one.members[NEW]) <= theirs:
            lone = {side: names - set(one.lone[side]) for side, names in lone.items()}
    return {side: tuple(sorted(names)) for side, names in lone.items()}


def _gradients(legacy: Recording, new: Recording, rules: NameMapping) -> dict[str, tuple[str, ...]]:
    without = {}
    for side, recording in ((LEGACY, legacy), (NEW, new)):
        names = {*recording.coverage["without_gradient"], *recording.coverage.get("frozen", ())}
        if side == LEGACY:
            # a dropped parameter has no twin to differ from
            own = {name for whole in names for name in own_names(whole)}
            names = set(new_names(own, rules))
        without[side] = names
    return {side: tuple(sorted(without[_OTHER[side]] - without[side])) for side in SIDES}
