"""Matching of dense queries, several to an object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from .costs import pairs_of


def match_dense(cost: np.ndarray, counts: Sequence[int], copies_wanted: int) -> np.ndarray:
    """Match queries to copies of the objects at the least cost, for each set and image.

    Args:
        cost: [sets, bs, n, most].
        counts: objects of each image.
        copies_wanted: queries of each object; fewer where there are fewer queries than that.

    Returns:
        As :func:`~.costs.match`.

    Raises:
        ValueError: if a cost is not finite.
    """
    copies = [min(copies_wanted, cost.shape[2] // count) if count else 0 for count in counts]

    def solve(number: int, image: int) -> tuple[np.ndarray, np.ndarray]:
        of_objects = cost[number, image, :, : counts[image]]  # [n, objects]
        rows, columns = linear_sum_assignment(of_objects.repeat(copies[image], axis=1))
        return rows, columns // max(copies[image], 1)

    return pairs_of(solve, len(cost), counts)
