"""Modules whose parameters rules change: one on one side may be several on the other, or compute in another shape.

What a module computes that is split or joined has no twin. Its weights are compared element by element, and so is
everything that is computed of its results; its calls pair with those of its counterparts. A module whose parameters are
permuted, reshaped or cut has a twin, and what both take and give in one shape is compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from converters.rules.mapping import Mapping as Rules
from legacy_adapters.ground.names import LEGACY, NEW

from ..traces.kinds import Kind
from ..traces.trace import Recording
from .converted import own_names


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


def _modules(parameters: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in parameters))
