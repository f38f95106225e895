"""Compare what both sides make of a model before weights are loaded: check ``init``.

Values and flags of parameters and buffers are records like others. What is no value is compared here: which weights the
code asks for, which parameters are copies of each other or one, and which are written to twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converters.rules.mapping import Mapping as NameMapping
from legacy_adapters.tasks.initialising import INIT, TRAINED

from ..comparing.compare import Comparison
from ..comparing.converted import new_names
from ..comparing.pairing import LEGACY, NEW
from ..traces.kinds import Kind
from .blame import DETECTOR, common_module

Groups = Sequence[Sequence[str]]


@dataclass(frozen=True)
class InitialDifference:
    """Something that the new side makes otherwise.

    Attributes:
        where: module path or parameter on the new side; ``the detector`` where it is in several of its parts.
        message: one sentence.
    """

    where: str
    message: str


def initial_differences(
    legacy: Mapping[str, Any], new: Mapping[str, Any], rules: NameMapping, comparisons: Iterable[Comparison]
) -> tuple[InitialDifference, ...]:
    """Return what differs, the cause of others first; nothing where a side has not run check ``init``.

    Args:
        legacy: coverage of the legacy side.
        new: coverage of the new side.
        rules: give legacy modules and parameters their new names.
        comparisons: of the values.
    """
    if INIT not in legacy or INIT not in new:
        return ()
    ours, theirs = _translated(legacy[INIT], rules), new[INIT]
    place = {name: index for index, name in enumerate(theirs.get("order", ()))}
    rejected = [c for c in comparisons if c.pair.new.kind == Kind.INIT and not c.accepted]
    rejected.sort(key=lambda c: place.get(c.pair.new.name, len(place)))
    values = [c for c in rejected if c.pair.new.slot != TRAINED]
    flags = [c for c in rejected if c.pair.new.slot == TRAINED]
    # what has other values is told already
    names = {name for name in ours["recipes"] if name in theirs["recipes"]} - {c.pair.new.name for c in values}
    differences = [
        *_loads(ours["loaded"], theirs["loaded"]),
        *_skipped(ours["written"], theirs["written"], {c.pair.new.name for c in values}),
        *_values(values, ours["recipes"], theirs["recipes"]),
        *_flags(flags),
        *_divided(ours["shared"], theirs["shared"], names, "one parameter", "parameters of their own"),
        *_divided(ours["copies"], theirs["copies"], names, "copies", "drawn each for itself"),
        *_twice(ours["written"], theirs["written"]),
    ]
    return tuple(differences)


def drawn_alike(
    comparisons: Iterable[Comparison], legacy: Mapping[str, Any], new: Mapping[str, Any], rules: NameMapping
) -> tuple[Comparison, ...]:
    """Accept initial values that are drawn by one recipe where a rule splits, joins or turns the tensor.

    Draws of other shapes have other values, so there the recipe is compared: kind and bounds of the draw.
    Arguments as of :func:`initial_differences`.
    """
    if INIT not in legacy or INIT not in new or not rules.changes_tensors:
        return tuple(comparisons)
    one, two = _translated(legacy[INIT], rules)["recipes"], new[INIT]["recipes"]
    changed = {
        target
        for application in rules.applications(sorted(legacy[INIT]["recipes"]))
        if application.rule.changes_tensors
        for target in application.targets
    }
    alike = {name for name in changed if one.get(name) is not None and one[name] == two.get(name)}

    def judged(comparison: Comparison) -> Comparison:
        record = comparison.pair.new
        is_value = record.kind == Kind.INIT and record.slot != TRAINED
        return replace(comparison, accepted=True) if is_value and record.name in alike else comparison

    return tuple(map(judged, comparisons))


def _translated(initial: Mapping[str, Any], rules: NameMapping) -> dict[str, Any]:
    """Return what the legacy side told, under the names of the new side.

    What is joined there is made in all ways in which its parts are, and written to as often as the one that is most; it
    is a copy of another if every part is one of the other's. What has no name there keeps its own.
    """
    names = {*initial["recipes"], *initial["written"]}
    names |= {name for which in ("copies", "shared") for group in initial[which] for name in group}
    made_of = new_names(sorted(names), rules)
    kept = names - {source for sources in made_of.values() for source, _ in sources}
    made_of |= {name: ((name, 0),) for name in kept if name not in made_of}

    def recipe(sources: Sequence[tuple[str, int]]) -> str:
        return " and ".join(dict.fromkeys(initial["recipes"][name] for name, _ in sources))

    def groups(which: str) -> list[list[str]]:
        numbers = {name: number for number, group in enumerate(initial[which]) for name in group}
        found: dict[tuple[tuple[int, int], ...], list[str]] = defaultdict(list)
        for name, sources in made_of.items():
            if all(source in numbers for source, _ in sources):
                found[tuple((numbers[source], part) for source, part in sources)].append(name)
        return [group for group in found.values() if len(group) > 1]

    def of_all(which: str) -> dict[str, tuple[tuple[str, int], ...]]:
        return {name: sources for name, sources in made_of.items() if all(one in initial[which] for one, _ in sources)}

    return dict(
        recipes={name: recipe(sources) for name, sources in of_all("recipes").items()},
        written={name: max(initial["written"][one] for one, _ in made) for name, made in of_all("written").items()},
        loaded=[[rules.map_module(module) or module, *rest] for module, *rest in initial["loaded"]],
        copies=groups("copies"),
        shared=groups("shared"),
    )


def _loads(legacy: Sequence[Sequence[str]], new: Sequence[Sequence[str]]) -> list[InitialDifference]:
    ours, theirs = Counter(map(tuple, legacy)), Counter(map(tuple, new))
    if ours == theirs:
        return []
    places = sorted({module for module, *_ in (*(ours - theirs), *(theirs - ours))})
    differences = []
    for place in places:
        one, two = ([load for load in map(tuple, side) if load[0] == place] for side in (legacy, new))
        text = f"The code of {_quoted(place)} asks for {_files(two)}; the legacy side's asks for {_files(one)}."
        differences.append(InitialDifference(place or DETECTOR, text))
    return differences


def _files(loads: Sequence[tuple[str, ...]]) -> str:
    if not loads:
        return "no weights"
    counts = Counter(file + (f" (prefix {prefix})" if prefix else "") for _, file, prefix in loads)
    return " and ".join(f"weights {file}" + (f" {count} times" if count > 1 else "") for file, count in counts.items())


def _skipped(legacy: Mapping[str, int], new: Mapping[str, int], differing: set[str]) -> list[InitialDifference]:
    """Tell parts that the legacy side's ``init_weights`` writes to and the new side's does not, with other values."""
    written = [name for name in legacy if name in new and legacy[name]]
    places = [
        part
        for part, names in _parts(written).items()
        if not any(new[name] for name in names) and any(name in differing for name in names)
    ]
    if not places:
        return []
    whole = len(places) > 1 and not any(new[name] for name in written)
    where = DETECTOR if whole else places[0]
    listed = ", ".join(f"`{place}`" for place in places)
    text = f"`init_weights` leaves {listed} as built; the legacy side's initialises what is in there."
    return [InitialDifference(where, text)]


def _values(
    differing: Sequence[Comparison], legacy: Mapping[str, str], new: Mapping[str, str]
) -> list[InitialDifference]:
    differences = []
    for part, names in _parts([c.pair.new.name for c in differing]).items():
        first = names[0]
        one, two = legacy.get(first, "unknown"), new.get(first, "unknown")
        how = f"{one} on the legacy side, {two} on the new one"
        if one == two:
            how = f"{one} on both sides, with other values"
        more = f" ({len(names)} such parameters in `{common_module(names)}`)" if len(names) > 1 else ""
        where = first_module(names) or part
        differences.append(InitialDifference(where, f"`{first}` is initialised differently: {how}{more}."))
    return differences


def _flags(differing: Sequence[Comparison]) -> list[InitialDifference]:
    differences = []
    for names in _parts([c.pair.new.name for c in differing]).values():
        more = f" ({len(names)} such parameters)" if len(names) > 1 else ""
        text = f"`{names[0]}` is trained on one side and frozen on the other{more}."
        differences.append(InitialDifference(common_module(names), text))
    return differences


def _divided(legacy: Groups, new: Groups, names: set[str], joint: str, separate: str) -> list[InitialDifference]:
    """Compare which parameters belong together, of those that both sides have."""
    groups = {LEGACY: _groups(legacy, names), NEW: _groups(new, names)}
    sides = ((LEGACY, NEW, separate, joint), (NEW, LEGACY, joint, separate))
    for one, other, on_new, on_legacy in sides:
        moved: list[str] = []
        example: dict[str, str] = {}
        for group in groups[one].values():
            parts: dict[frozenset[str], list[str]] = defaultdict(list)
            for name in group:
                parts[groups[other].get(name, frozenset((name,)))].append(name)
            if len(parts) > 1:
                largest = max(parts.values(), key=lambda part: (len(part), sorted(part)))
                lost = sorted(name for part in parts.values() if part is not largest for name in part)
                moved += [name for name in lost if name not in example]
                example.update(dict.fromkeys(lost, sorted(largest)[0]))
        if moved:
            moved.sort()
            # of two that are alike by mistake none is more wrong than the other
            blamed = moved if one == LEGACY else sorted({*moved, *example.values()})
            more = f" ({len(moved)} such parameters in `{common_module(moved)}`)" if len(moved) > 1 else ""
            text = (
                f"`{moved[0]}` and `{example[moved[0]]}` are {on_new} on the new side and {on_legacy} on the "
                f"legacy one{more}."
            )
            return [InitialDifference(common_module(blamed) or DETECTOR, text)]
    return []


def _groups(groups: Groups, names: set[str]) -> dict[str, frozenset[str]]:
    groups_of = {}
    for group in groups:
        members = frozenset(group) & names
        groups_of.update(dict.fromkeys(members, members))
    return groups_of


def _twice(legacy: Mapping[str, int], new: Mapping[str, int]) -> list[InitialDifference]:
    """Tell modules of which everything that is written to is written to at least twice as often as on the legacy side.

    Of a module, not of a parameter: what draws all matrices before modules initialise themselves writes to some
    parameters once more, and changes nothing.
    """
    written: dict[str, list[str]] = defaultdict(list)
    for name in legacy:
        if name in new and legacy[name]:
            written[name.rpartition(".")[0] or name].append(name)
    twice = [module for module, names in written.items() if all(new[name] >= 2 * legacy[name] for name in names)]
    if not twice:
        return []
    places = [common_module(names) for names in _parts([name for module in twice for name in written[module]]).values()]
    listed = ", ".join(f"`{place}`" for place in places)
    first = written[twice[0]][0]
    text = (
        f"`init_weights` initialises {listed} more than once: it writes to `{first}` {_times(new[first])}, the legacy "
        f"side's {_times(legacy[first])}."
    )
    return [InitialDifference(places[0] if len(places) == 1 else DETECTOR, text)]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _parts(names: Iterable[str]) -> dict[str, list[str]]:
    """Group parameters by the part of the detector that they are in."""
    parts: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parts[name.split(".")[0]].append(name)
    return parts


def _quoted(module: str) -> str:
    return f"`{module}`" if module else DETECTOR


def first_module(names: Sequence[str]) -> str:
    """Return the path that all names begin with; where these are in several modules of a list, that of its first."""
    path = common_module(names)
    index = names[0][len(path) + 1 :].split(".")[0]
    if len(names) == 1 or not index.isdigit():
        return path
    return first_module([name for name in names if f"{name}.".startswith(f"{path}.{index}.")])
