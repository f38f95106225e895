"""Rankings that list more than the other side's, where nothing uses the rest.

``topk(4)[:3]`` takes the decision of ``topk(3)``: the longer list begins as the shorter one. Whether somebody uses the
rest shows in what else is recorded, so such a ranking is the same if all else of its phase matches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from ..comparing.compare import Comparison, rankings
from ..traces.trace import Recording, Trace


def with_unused_tails(
    comparisons: Iterable[Comparison], legacy: Recording, new: Trace, lone: Iterable[str]
) -> tuple[Comparison, ...]:
    """Accept rankings that differ in nothing but a rest that is not used.

    Args:
        comparisons: of all pairs.
        legacy: the one side.
        new: the other side.
        lone: phases with records that have no twin and no reason for it.
    """
    comparisons = tuple(comparisons)
    rejected = [one for one in comparisons if not one.accepted]
    alike = {id(one) for one in rejected if _begins_alike(one, legacy, new)}
    used = {*lone, *(one.pair.new.phase for one in rejected if id(one) not in alike)}
    return tuple(
        replace(one, identical=True, accepted=True, difference=None, finding=None, decision=None)
        if id(one) in alike and one.pair.new.phase not in used
        else one
        for one in comparisons
    )


def _begins_alike(comparison: Comparison, legacy: Recording, new: Trace) -> bool:
    """Tell whether the records are rankings of other lengths, of which the longer begins as the shorter."""
    lists = rankings(legacy, new, comparison.pair)
    if lists is None or not all(ranked.dim() for ranked in lists):
        return False
    length = min(ranked.shape[-1] for ranked in lists)
    return torch.equal(*(ranked[..., :length] for ranked in lists))
