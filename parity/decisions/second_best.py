"""Find by how little a minimum-cost matching is better than any other one.

Two matchings of the same size differ by cycles and paths along which rows move from their column to the next. So the
least extra cost is the lightest such round in a graph whose nodes are the columns and whose edges are moves: found by
shortest paths between all columns, not by matching again without each pair.

Columns of equal costs count as one: swapping them is no other decision. A one-to-many matching repeats every object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_INFINITE = float("inf")
#: A path is taken for shorter only if it is by more than rounding, so that no round is walked for its rounding.
_ROUNDING = 2.0**-46
_NOBODY = -1  # row of an edge on which nothing moves


@dataclass(frozen=True)
class Rival:
    """The other matching that costs least.

    Attributes:
        excess: what it costs more than the best one, at least 0.
        left: (row, column) pairs of the best matching that it gives up.
        taken: (row, column) pairs that it has instead; of equal columns one stands for all.
    """

    excess: float
    left: tuple[tuple[int, int], ...]
    taken: tuple[tuple[int, int], ...]


def second_best(cost: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> Rival | None:
    """Return the cheapest matching other than a best one; None if there is no other.

    Args:
        cost: [n, m] float64; NaN is not allowed.
        rows: [min(n, m)] of the best matching.
        cols: [min(n, m)], the column of each.
    """
    if not min(cost.shape):
        return None
    graph = _Graph(cost, np.asarray(rows), np.asarray(cols))
    edges = graph.lightest_round()
    if edges is None:
        return None
    moves = [graph.move(one, two) for one, two in edges]
    left = tuple((row, old) for row, old, _ in moves if old is not None)
    taken = tuple((row, new) for row, _, new in moves if new is not None)
    terms = [float(cost[pair]) for pair in taken] + [-float(cost[pair]) for pair in left]
    return Rival(max(math.fsum(terms), 0.0), left, taken)


class _Graph:
    """Groups of equal columns, and at what cost a row moves from one to another.

    The last node stands for being unmatched: rows that are free leave it, rows that become free enter it. Columns that
    are free are ends of a path; a path between two groups closes there at no cost.
    """

    def __init__(self, cost: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> None:
        _, first, group = np.unique(cost, axis=1, return_index=True, return_inverse=True)
        self._column = first  # of each group, one of its columns
        group = group.reshape(-1)
        self._count = len(first)
        used = np.bincount(group[cols], minlength=self._count)
        self._room = np.bincount(group, minlength=self._count) > used  # groups with a free column
        self._old = {int(row): int(col) for row, col in zip(rows, cols)}
        size = self._count + 1
        self._weights = np.full((size, size), _INFINITE)
        self._rows = np.full((size, size), _NOBODY)
        self._fill(cost[:, first], rows, group[cols])
        self._scale = float(np.abs(cost[np.isfinite(cost)]).max(initial=0.0))

    def _fill(self, cost: np.ndarray, rows: np.ndarray, groups: np.ndarray) -> None:
        """Set the weight and the row of the cheapest move between any two nodes; ``cost`` is by group."""
        free = np.setdiff1d(np.arange(len(cost)), rows)
        for node in range(self._count):
            members = rows[groups == node]
            if not len(members):
                continue
            with np.errstate(invalid="ignore"):  # infinite costs: a move between two of them is not one
                moves = np.nan_to_num(cost[members] - cost[members, node][:, None], nan=_INFINITE, posinf=_INFINITE)
            self._set(node, moves, members)
            if len(free):
                loss = -cost[members, node]
                self._weights[node, -1], self._rows[node, -1] = loss.min(), members[loss.argmin()]
        if len(free):
            self._set(-1, cost[free], free)
        np.fill_diagonal(self._weights, _INFINITE)

    def _set(self, node: int, moves: np.ndarray, members: np.ndarray) -> None:
        best = moves.argmin(0)
        self._weights[node, :-1] = moves[best, np.arange(self._count)]
        self._rows[node, :-1] = members[best]

    def move(self, one: int, two: int) -> tuple[int, int | None, int | None]:
        """Return the row that moves along an edge, the column it leaves and the one it takes, None for unmatched."""
        row = int(self._rows[one, two])
        old = self._old.get(row)
        return row, old, None if two == self._count else int(self._column[two])

    def lightest_round(self) -> list[tuple[int, int]] | None:
        """Return the edges of the lightest cycle, or path that ends in a free column; None if there is none."""
        lengths, towards = self._shortest_paths()
        # a cycle through an edge is the edge and the way back
        cycles = self._weights + lengths.T
        paths = lengths[:-1, :-1] + np.where(self._room, 0.0, _INFINITE)[None]
        np.fill_diagonal(paths, _INFINITE)
        if min(cycles.min(), paths.min(initial=_INFINITE)) == _INFINITE:
            return None
        if paths.min(initial=_INFINITE) <= cycles.min():
            start, end = np.unravel_index(int(paths.argmin()), paths.shape)
            return _walk(towards, int(start), int(end))
        start, end = (int(node) for node in np.unravel_index(int(cycles.argmin()), cycles.shape))
        return [(start, end), *_walk(towards, end, start)]

    def _shortest_paths(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the length of the shortest path between any two nodes and its first step (Floyd, Warshall)."""
        size = len(self._weights)
        lengths, towards = self._weights.copy(), np.tile(np.arange(size), (size, 1))
        np.fill_diagonal(lengths, 0.0)
        least = _ROUNDING * self._scale * size
        for via in range(size):
            longer = lengths[:, via, None] + lengths[None, via]
            shorter = longer < lengths - least
            lengths[shorter] = longer[shorter]
            towards = np.where(shorter, towards[:, via, None], towards)
        return lengths, towards


def _walk(towards: np.ndarray, start: int, end: int) -> list[tuple[int, int]]:
    edges = []
    while start != end:
        step = int(towards[start, end])
        edges.append((start, step))
        start = step
    return edges
