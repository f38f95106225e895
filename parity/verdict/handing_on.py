"""Whose code gives a gradient to an output: not that of a module which only hands it on.

A gradient that arrives at the last part of a block comes from whatever uses the block's result. The part's record has
the block as the code that was running. Where the block's own calls are not compared, that would blame the block before
the one that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from legacy_adapters.recording.trace_writer import Record

from ..comparing.compare import Comparison
from ..traces.kinds import Kind

#: Phase, name of a module, digest of a gradient -> the code that called the module.
_Givers = dict[tuple[str, str, str], str]


def with_givers(
    comparisons: Iterable[Comparison], legacy: Sequence[Record], new: Sequence[Record]
) -> tuple[Comparison, ...]:
    """Give rejected gradients of outputs the innermost code as scope that does more than to hand them on.

    Passed over are modules of the new side whose own calls have no twin, where they and the legacy side's give on the
    gradient of their own output as it is.

    Args:
        comparisons: of all pairs.
        legacy: all records of the legacy side, in the new side's form.
        new: all records of the new side.
    """
    comparisons = tuple(comparisons)
    if all(c.accepted or c.pair.new.kind != Kind.OUT_GRAD for c in comparisons):
        return comparisons
    ours, theirs = _givers(legacy), _givers(new)
    compared = {(c.pair.new.phase, c.pair.new.name) for c in comparisons if c.pair.new.kind == Kind.OUT_GRAD}

    def with_giver(comparison: Comparison) -> Comparison:
        one, two = comparison.pair.legacy, comparison.pair.new
        is_handed_on = (one.phase, one.scope, one.digest) in ours
        if comparison.accepted or two.kind != Kind.OUT_GRAD or not is_handed_on:
            return comparison
        scope = two.scope
        while scope and (two.phase, scope) not in compared and (two.phase, scope, two.digest) in theirs:
            scope = theirs[two.phase, scope, two.digest]
        if scope == two.scope:
            return comparison
        return replace(comparison, pair=replace(comparison.pair, new=replace(two, scope=scope), scope=scope))

    return tuple(map(with_giver, comparisons))


def _givers(records: Iterable[Record]) -> _Givers:
    return {(r.phase, r.name, r.digest): r.scope for r in records if r.kind == Kind.OUT_GRAD}
