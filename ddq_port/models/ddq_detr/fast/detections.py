"""The best pairs of query and class of every image, from one ranking."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def best_pairs(scores: Tensor, active: Tensor, wanted: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Rank the pairs of query and class of each image.

    Args:
        scores: [bs, n, num_classes] in [0, 1].
        active: [bs, n] bool, queries that are ranked before all others.
        wanted: pairs of each image.

    Returns:
        Scores, -1 of queries that are not active, and ``query * num_classes + class``: both [bs, most wanted], best
        first. What lies behind the pairs that an image wants is of no use.
    """
    of_pairs = scores.masked_fill(~active[..., None], -1.0).flatten(1)  # [bs, n * num_classes]
    return of_pairs.topk(min(max(wanted), of_pairs.shape[1]))
