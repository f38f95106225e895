"""Modules whose parameters rules change: one on one side may be several on the other, or compute in another shape.

What a module computes that is split or joined has no twin. Its weights are compared element by element, and so is
everything that is computed of its results; its calls pair with those of its counterparts. A module whose parameters are
permuted, reshaped or cut has a twin, and what both take and give in one shape and layout is compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations

from converters.rules.mapping import Mapping as Rules
from legacy_adapters.ground.names import LEGACY, NEW
from legacy_adapters.recording.trace_writer import Record

from ..traces.kinds import Kind
from ..traces.trace import Recording
from .converted import own_names
from .twins import NEAR, Likeness

#: A value fits another order of dimensions if it is so many times nearer in that.
_NEARER = 8.0
#: Of more, not every order is tried.
_MOST_DIMENSIONS = 5


@dataclass(frozen=True)
class Regrouping:
    """Modules of both sides that hold the same parameters in other tensors.

    Attributes:
        members: paths of the modules of each side, as that side names them.
        lone: those of them that have no twin by name.
    """

    members: dict[str, tuple[str, ...]]
    lone: dict[str, tuple[str, ...]]


def regroupings(legacy: Recording, new: Recording, rules: Rules) -> tuple[Regrouping, ...]:
    """Return the modules of two recordings whose parameters are split or joined on the way, by the records of weights.

    A module that has further parameters or parts may have a twin all the same.
    """
    if not rules.changes_tensors:
        return ()
    names = (name for record in legacy.records if record.kind == Kind.PARAM for name in own_names(record.name))
    pairs = {
        (_modules(one.sources), _modules(one.targets))
        for one in rules.applications(names)
        if not one.missing and len(one.sources) + len(one.targets) > 2
    }
    modules = {*legacy.coverage.get("classes", {}), *(path for ours, _ in pairs for path in ours)}
    twins = {path: rules.map_module(path) for path in modules}
    images = set(twins.values())
    return tuple(
        Regrouping(
            {LEGACY: ours, NEW: theirs},
            {
                LEGACY: tuple(path for path in ours if twins[path] is None),
                NEW: tuple(path for path in theirs if path not in images),
            },
        )
        for ours, theirs in sorted(pairs)
    )


def changed_modules(legacy: Recording, rules: Rules) -> frozenset[str]:
    """Return the legacy modules, but for the whole model, with a parameter that a rule permutes, reshapes or cuts."""
    if not rules.changes_tensors:
        return frozenset()
    names = (name for record in legacy.records if record.kind == Kind.PARAM for name in own_names(record.name))
    found = (
        name.rpartition(".")[0]
        for one in rules.applications(names)
        if one.rule.changes_tensors and len(one.sources) == len(one.targets) == 1
        for name in one.sources
    )
    return frozenset(found) - {""}


def is_turned(one: Record, two: Record, likeness: Likeness) -> bool:
    """Tell whether a value of a changed module is laid out otherwise on the new side, though it has the same shape.

    That is known by its numbers: with dimensions of equal length exchanged they are the same, and else they are not.

    Args:
        one: record of the legacy side.
        two: its twin by name.
        likeness: tells how far they are apart.
    """
    if one.shape != two.shape or one.digest == two.digest or not one.is_float or len(one.shape) > _MOST_DIMENSIONS:
        return False
    orders = (
        order
        for order in permutations(range(len(one.shape)))
        if tuple(one.shape[dim] for dim in order) == one.shape and any(dim != order[dim] for dim in order)
    )
    gap = min((likeness(one, two, order) for order in orders), default=math.inf)
    return gap < NEAR and gap < likeness(one, two) / _NEARER


def _modules(parameters: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in parameters))
