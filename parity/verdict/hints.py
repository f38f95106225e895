"""Say what a family knows of the place where the sides part, or of the error by which one ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

from legacy_adapters.correspondence import Hint

from .blame import Divergence


def hint_of(divergence: Divergence, hints: Sequence[Hint]) -> str:
    """Return what is known of the first place where the sides part; empty if nothing is."""
    if divergence.comparison is None:
        return ""
    pair = divergence.comparison.pair
    sizes = [math.prod(record.shape) for record in (pair.legacy, pair.new)]
    fitting = (hint for hint in hints if hint.covers(pair.new) and (not hint.fewer or sizes[1] < sizes[0]))
    return next((hint.text for hint in fitting), "")


def hint_of_error(error: str, hints: Sequence[Hint]) -> str:
    """Return what is known of the error by which the new side ends; empty if nothing is."""
    return next((hint.text for hint in hints if hint.covers_error(error)), "")
