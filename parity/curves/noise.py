"""How far one further run may lie from repeated runs, if it differs from them by its seed only.

Student's prediction interval for one further observation: of n runs with mean m and standard deviation s, a further
one lies within ``m +- t * s * sqrt(1 + 1/n)``, where t is the quantile of Student's distribution with n - 1 degrees of
freedom (G. J. Hahn, "Factors for calculating two-sided prediction intervals for samples from a normal distribution",
JASA 64, 1969; W. Q. Meeker, G. J. Hahn and L. A. Escobar, "Statistical Intervals", 2nd ed. 2017, section 4.8). It
holds for few runs, too: with three the factor is large, and the interval says honestly how little three runs tell.

Many intervals are looked at, so that one would be left by chance. Their levels are divided so that the chance that a
run of the same code leaves any of them is at most the level asked for, whatever the quantities have to do with each
other (Bonferroni's inequality).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """Where a further run may lie.

    Attributes:
        mean: of the runs.
        spread: their standard deviation, with n - 1.
        half: half the width of the interval; infinite for one run.
    """

    mean: float
    spread: float
    half: float

    def holds(self, value: float) -> bool:
        """Tell whether ``value`` lies within; NaN and infinity do not."""
        return abs(value - self.mean) <= self.half and math.isfinite(value)


def prediction_interval(values: Sequence[float], chance: float, step: float = 0.0) -> Interval:
    """Return the interval that a further run of the same kind leaves with probability ``chance``.

    Args:
        values: one number of each run, finite.
        chance: in (0, 1).
        step: unit in which the logs rounded the values; the interval is wider by that on both sides, for rounding moves
            a value, and the mean of the others, by up to half of it each.
    """
    runs = len(values)
    mean = float(np.mean(values))
    if runs < 2:
        return Interval(mean, math.nan, math.inf)
    spread = float(np.std(values, ddof=1))
    return Interval(mean, spread, factor(runs, chance) * spread + step)


def factor(runs: int, chance: float) -> float:
    """Return half the width of the interval in standard deviations, for ``runs`` from 2 on."""
    from scipy.special import stdtrit  # takes a while to import

    return float(stdtrit(runs - 1, 1 - chance / 2)) * math.sqrt(1 + 1 / runs)
