"""Prediction intervals: against tables and against what they promise."""

import math

import numpy as np
import pytest

from parity.curves.noise import factor, prediction_interval


@pytest.mark.parametrize(
    ("runs", "chance", "expected"),
    [
        # t(0.975) with 2, 4 and 9 degrees of freedom is 4.303, 2.776, 2.262; t(0.995) with 4 is 4.604
        (3, 0.05, 4.303 * math.sqrt(4 / 3)),
        (5, 0.05, 2.776 * math.sqrt(6 / 5)),
        (10, 0.05, 2.262 * math.sqrt(11 / 10)),
        (5, 0.01, 4.604 * math.sqrt(6 / 5)),
    ],
)
def test_factor_is_that_of_the_tables(runs, chance, expected):
    assert factor(runs, chance) == pytest.approx(expected, rel=3e-4)


def test_interval_by_hand():
    interval = prediction_interval([1.0, 2.0, 3.0], 0.05)
    assert interval.mean == 2.0 and interval.spread == 1.0
    assert interval.half == pytest.approx(4.303 * math.sqrt(4 / 3), rel=3e-4)
    assert interval.holds(2.0 + interval.half) and not interval.holds(2.01 + interval.half)
    assert not interval.holds(math.nan) and not interval.holds(math.inf)


def test_one_run_tells_nothing_of_noise():
    assert prediction_interval([1.0], 0.05).half == math.inf


def test_rounding_of_the_log_is_no_difference():
    interval = prediction_interval([0.513, 0.513, 0.513], 0.05, step=0.001)
    assert interval.holds(0.514 - 1e-9) and not interval.holds(0.5145)
    assert not prediction_interval([0.513] * 3, 0.05).holds(0.514)


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_a_further_run_leaves_it_as_often_as_promised(runs):
    generator = np.random.default_rng(runs)
    samples = generator.standard_normal((4000, runs + 1))
    outside = np.mean([not prediction_interval(row[:-1], 0.1).holds(row[-1]) for row in samples])
    assert outside == pytest.approx(0.1, abs=0.015)
