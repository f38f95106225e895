"""Modules that hold the same parameters on both sides, though no rule tells that one is the other.

Rules that name every part of a block say where each goes, and nothing of the block itself. Where all parameters below
one module of the legacy side go below one module of the new side, and nothing else goes there, the two are most likely
counterparts. They need not be: one may add what the other leaves to its caller. So such pairs are tried where the sides
part, to name the place better, and are given up where the values around them contradict; they never cause a mismatch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from converters.rules.mapping import Mapping as Rules

from ..traces.kinds import OF_METHODS, OF_MODULES, Kind, Turn
from ..traces.trace import Recording
from .compare import Comparison
from .converted import new_names, own_names

#: Paths of a module on the legacy and on the new side.
Containers = tuple[tuple[str, str], ...]


def containers(legacy: Recording, new: Recording, rules: Rules) -> Containers:
    """Return the called modules without a counterpart that hold the same parameters, in the order of the legacy side.

    Where several modules of one side lie in each other and hold the same parameters, they pair from the outermost on if
    there are as many on the other side, and else not at all.
    """
    known = {path: rules.map_module(path) for path in _called(legacy)}
    images = set(known.values())
    ours = [path for path, name in known.items() if path and name is None]
    theirs = [path for path in _called(new) if path and path not in images]
    if not ours or not theirs:
        return ()
    sources = new_names(dict.fromkeys(name for one in _weights(legacy) for name in own_names(one)), rules)
    of_legacy: dict[frozenset[str], list[str]] = defaultdict(list)
    for path in ours:
        of_legacy[_goes_to(path, sources)].append(path)
    of_new: dict[frozenset[str], list[str]] = defaultdict(list)
    for path in theirs:
        of_new[frozenset(name for name in sources if name.startswith(f"{path}."))].append(path)
    return tuple(
        pair
        for names, paths in of_legacy.items()
        if names and len(paths) == len(of_new.get(names, ()))
        for pair in zip(sorted(paths, key=len), sorted(of_new[names], key=len))
    )


def _goes_to(path: str, sources: dict[str, tuple[tuple[str, int], ...]]) -> frozenset[str]:
    """Return what the parameters below a legacy module become; nothing if one is made of others as well."""
    inside = {target: [name.startswith(f"{path}.") for name, _ in names] for target, names in sources.items()}
    if any(any(of_target) and not all(of_target) for of_target in inside.values()):
        return frozenset()
    return frozenset(target for target, of_target in inside.items() if all(of_target))


def contradicted(comparisons: Sequence[Comparison], tried: Containers, rules: Rules) -> Containers:
    """Return those of ``tried`` that do not take and give the same, by what was compared around them.

    What a module takes or gives is taken or given by others as well. If it differs and the next record that is known to
    have a twin does not, the module's border lies elsewhere on the other side. So it does if the shape differs.

    Args:
        comparisons: with ``tried`` paired, in legacy recording order.
        tried: of :func:`containers`.
        rules: without them.
    """
    wrong: set[str] = set()
    waiting: dict[tuple[str, Turn], list[str]] = defaultdict(list)
    settled: dict[tuple[str, Turn], bool] = {}
    for comparison in comparisons:
        record, name, place = comparison.pair.new, comparison.pair.legacy.name, _place(comparison)
        if record.kind in OF_METHODS:
            continue
        if record.kind in OF_MODULES and rules.map_module(name) != record.name:
            if comparison.pair.legacy.shape != record.shape:
                wrong.add(name)
            elif not comparison.accepted:
                waiting[place].append(name)
            continue
        if comparison.accepted:
            wrong.update(waiting[place])
        waiting[place].clear()
        settled[place] = settled.get(place, True) and comparison.accepted
    wrong.update(name for place, names in waiting.items() if settled.get(place, True) for name in names)
    around = ([pair for pair in tried if f"{name}.".startswith(f"{pair[0]}.")] for name in wrong)
    innermost = {max(pairs, key=lambda pair: len(pair[0])) for pairs in around if pairs}
    return tuple(pair for pair in tried if pair in innermost)


def _place(comparison: Comparison) -> tuple[str, Turn]:
    return comparison.pair.new.phase, Kind(comparison.pair.new.kind).turn


def _called(recording: Recording) -> list[str]:
    return list(dict.fromkeys(record.name for record in recording.records if record.kind == Kind.MODULE_OUT))


def _weights(recording: Recording) -> list[str]:
    return [record.name for record in recording.records if record.kind == Kind.PARAM]
