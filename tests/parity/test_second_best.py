"""The second-best matching, against trying all."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from parity.decisions.second_best import second_best


def by_trying_all(cost):
    """Return what the best and the second-best matching cost; equal columns count as one."""
    rows, cols = cost.shape
    _, group = np.unique(cost, axis=1, return_inverse=True)
    group = group.reshape(-1)
    totals = {}
    for others in itertools.permutations(range(max(rows, cols)), min(rows, cols)):
        pairs = list(zip(others, range(cols)) if rows >= cols else zip(range(rows), others))
        key = frozenset((row, int(group[col])) for row, col in pairs)
        totals[key] = math.fsum(cost[pair] for pair in pairs)
    return [*sorted(totals.values())[:2], None][:2]


def found(cost):
    return second_best(cost, *linear_sum_assignment(cost))


def table(kind, generator):
    rows, cols = generator.integers(1, 6, 2)
    if kind == "copies":
        return np.repeat(generator.standard_normal((rows, (cols + 1) // 2)), 2, axis=1)[:, :cols]
    if kind == "ties":
        return generator.integers(0, 4, (rows, cols)).astype(np.float64)
    cost = generator.standard_normal((rows, cols))
    return cost.astype(np.float32).astype(np.float64) if kind == "float32" else cost


@pytest.mark.parametrize("kind", ["any", "float32", "ties", "copies"])
def test_excess_is_that_of_the_second_best_of_all_matchings(kind):
    generator = np.random.default_rng(0)
    several = 0
    for _ in range(300):
        cost = table(kind, generator)
        best, second = by_trying_all(cost)
        rival = found(cost)
        if second is None:
            assert rival is None, cost
            continue
        several += 1
        assert rival.excess == pytest.approx(second - best, abs=1e-12), cost
    assert several > 200


@pytest.mark.parametrize("kind", ["any", "ties", "copies"])
def test_pairs_given_up_and_taken_make_a_matching_of_that_cost(kind):
    generator = np.random.default_rng(1)
    for _ in range(200):
        cost = table(kind, generator)
        rows, cols = linear_sum_assignment(cost)
        rival = second_best(cost, rows, cols)
        if rival is None:
            continue
        best = set(zip(rows.tolist(), cols.tolist()))
        assert set(rival.left) <= best, cost
        other = [*(best - set(rival.left)), *rival.taken]
        assert len({row for row, _ in other}) == len(other) == len(best), cost
        # of equal columns one stands for all, so it may come up as often as it has copies
        columns = [tuple(cost[:, col]) for _, col in other]
        at_hand = [tuple(column) for column in cost.T]
        assert all(columns.count(column) <= at_hand.count(column) for column in columns), cost
        extra = math.fsum(cost[pair] for pair in other) - math.fsum(cost[pair] for pair in best)
        assert extra == pytest.approx(rival.excess, abs=1e-12), cost


def test_row_that_is_free_may_replace_another():
    rival = found(np.array([[1.0, 9.0], [9.0, 1.0], [9.0, 1.25]]))
    assert (rival.excess, rival.left, rival.taken) == (0.25, ((1, 1),), ((2, 1),))


def test_column_that_is_free_may_be_taken():
    rival = found(np.array([[1.0, 9.0, 1.5], [9.0, 1.0, 9.0]]))
    assert (rival.excess, rival.left, rival.taken) == (0.5, ((0, 0),), ((0, 2),))


def test_swap_of_equal_columns_is_no_other_matching():
    copies = np.array([[1.0, 1.0, 9.0, 9.0], [1.0, 1.0, 9.0, 9.0], [9.0, 9.0, 1.0, 1.0], [9.0, 9.0, 1.0, 1.0]])
    assert found(copies).excess == 16.0
    assert found(np.array([[1.0, 1.0], [2.0, 2.0]])) is None


def test_swap_of_equal_rows_costs_nothing():
    assert found(np.array([[1.0, 9.0], [9.0, 1.0], [9.0, 1.0]])).excess == 0.0


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1)], ids=str)
def test_nothing_else_is_possible(shape):
    assert found(np.ones(shape)) is None


def test_pair_that_must_not_be_is_no_way_out():
    barred = np.array([[1.0, np.inf], [np.inf, 1.0]])
    assert found(barred) is None
    assert found(np.array([[1.0, np.inf, 3.0], [np.inf, 1.0, 9.0]])).excess == 2.0


def test_gap_below_the_rounding_of_the_sums_is_still_exact():
    # 2^24 + 1 against 2^24: summed in float32 they would be equal
    cost = np.array([[2.0**24, 2.0**24], [0.0, 1.0]])
    assert found(cost).excess == 1.0
