"""How far the outputs of two models are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: Of differences, relative to the numbers around; in float64, in float32.
_TOLERANCE = {True: 1e-9, False: 1e-4}
_FLOOR = {True: 1e-6, False: 1e-2}  # of the largest number of a tensor: smaller ones count as this


@dataclass(frozen=True)
class Gap:
    """How far outputs are from each other.

    Attributes:
        largest: The largest difference; None where it cannot be told.
        scale: The largest number.
        is_equal: Every number is that of the other but for rounding, and some number is not 0.
    """

    largest: float | None
    scale: float
    is_equal: bool


def gap_of(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], is_precise: bool) -> Gap:
    """Compare outputs, each with numbers of its own size: a large one beside it hides nothing.

    Args:
        ours, theirs: The outputs, in their order.
        is_precise: They were computed in float64; in float32 otherwise.
    """
    import numpy as np

    finite = [np.abs(out[np.isfinite(out)]) for out in ours]
    scale = max((float(out.max()) for out in finite if out.size), default=0.0)
    if not ours or [out.shape for out in ours] != [out.shape for out in theirs]:
        return Gap(None, scale, False)
    largest, is_equal = 0.0, scale > 0
    for one, other, sizes in zip(ours, theirs, finite):
        if not one.size:
            continue
        with np.errstate(invalid="ignore"):
            difference = np.where(one == other, 0.0, np.abs(one - other))
        difference = np.where(np.isnan(difference), np.inf, difference)
        largest = max(largest, float(difference.max()))
        usual = float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 0.0
        least = max(usual, _FLOOR[is_precise] * float(sizes.max(initial=0.0)))
        size = np.maximum(np.abs(np.where(np.isfinite(one), one, 0.0)), least)
        is_equal = is_equal and bool((difference <= _TOLERANCE[is_precise] * size).all())
    return Gap(largest, scale, is_equal)
