"""Judging after each added pair of seeds without finding more than 5 % false gains.

Whoever tests at 5 % after every pair and stops at the first success finds far more than 5 % false gains. Alpha spending
(Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials", Biometrika 70) shares the 5 % out over the
looks: little while few seeds are in, most at the last look.

    plan = LookPlan((3, 5, 7, 9, 11))
    verdict = plan.judge(gains)  # of 3, then 5, ... seeds, until it is decided or the plan has ended

The shares are those of a z test that sees more and more of one sample; `gains.judge` at the level of a look uses t and
sign flips instead, and the interval of that look's confidence (a repeated confidence interval, Jennison and Turnbull
1989). `tests/results/test_sequential.py` simulates that the error rate holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from kdsweep.errors import KdsweepError
from kdsweep.results.gains import LEVEL, MARGIN, Verdict, judge

Spending = Callable[[float, float], float]

_NORMAL = NormalDist()
_GRID = 301
_TAIL = 8.0  # standard deviations; beyond it nothing is left of a normal distribution


def obrien_fleming(information: float, level: float) -> float:
    """The share of a one-sided `level` spent by the time that a share of the seeds is in: little at first."""
    return 2 * (1 - _NORMAL.cdf(_NORMAL.inv_cdf(1 - level / 2) / math.sqrt(information)))


def pocock(information: float, level: float) -> float:
    """As `obrien_fleming`, but nearly evenly from look to look: it stops earlier, and finds less in the end."""
    return level * math.log(1 + (math.e - 1) * information)


def nominal_levels(
    seeds: Sequence[int], level: float = LEVEL, spending: Spending = obrien_fleming
) -> tuple[float, ...]:
    """The two-sided level at which each look is to be judged.

    Args:
        seeds: How many pairs of seeds are in at each look, growing; the last is the most that will ever be.
        level: The two-sided error rate of all looks together; half of it is spent on either side.
        spending: How much is spent when.

    Source: the recursion of Armitage, McPherson and Rowe 1969, "Repeated significance tests on accumulating data".
    """
    times = [count / seeds[-1] for count in seeds]
    spent = [spending(time, level / 2) for time in times]
    levels: list[float] = []
    values, density, before = np.zeros(1), np.ones(1), 0.0  # of the sum so far, where no look has stopped
    for time, share in zip(times, np.diff([0.0, *spent]), strict=True):
        step = math.sqrt(time - before)
        bound = _bound(values, density, step, float(share))
        levels.append(2 * (1 - _NORMAL.cdf(bound / math.sqrt(time))))
        reached = np.linspace(-bound, bound, _GRID)
        moves = np.exp(-0.5 * ((reached[:, None] - values) / step) ** 2) / (step * math.sqrt(2 * math.pi))
        density = moves @ density * _simpson(bound)
        values, before = reached, time
    return tuple(levels)


def _bound(values: np.ndarray, weights: np.ndarray, step: float, share: float) -> float:
    """The bound that a sum passes upwards in one normal step with the probability `share`, by bisection."""
    low, high = 0.0, _TAIL
    for _ in range(50):
        middle = (low + high) / 2
        passed = float(weights @ [_NORMAL.cdf((value - middle) / step) for value in values])
        low, high = (middle, high) if passed > share else (low, middle)
    return high


def _simpson(bound: float) -> np.ndarray:
    """Weights of an integral over the grid from -bound to bound, by Simpson's rule."""
    weights = np.full(_GRID, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return weights * (2 * bound / (_GRID - 1) / 3)


@dataclass(frozen=True)
class LookPlan:
    """When one looks, fixed before the first look.

    Attributes:
        seeds: How many pairs of seeds are in at each look, growing; the last is the most that will ever be.
        level: The error rate of all looks together.
        spending: How much of it is spent when.
    """

    seeds: tuple[int, ...]
    level: float = LEVEL
    spending: Spending = obrien_fleming

    def __post_init__(self) -> None:
        if not self.seeds or self.seeds[0] < 2 or any(b <= a for a, b in zip(self.seeds, self.seeds[1:], strict=False)):
            raise KdsweepError(f"looks at {list(self.seeds)} seeds; accepted: a growing list that begins at 2 or more")

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """The two-sided level of each look."""
        return nominal_levels(self.seeds, self.level, self.spending)

    def judge(self, gains: ArrayLike, *, margin: float = MARGIN, family: int = 1) -> Verdict:
        """Judge a gain at the look that has all these seeds; failed ones, NaN, count as looked at.

        Args:
            gains: [S] paired differences, S one of the plan's looks.
            margin: A difference that does not matter, a fraction.
            family: How many comparisons this is one of.

        Raises:
            KdsweepError: If no look is planned at S seeds.
        """
        count = len(np.asarray(gains))
        if count not in self.seeds:
            raise KdsweepError(f"no look is planned at {count} seeds; accepted: {', '.join(map(str, self.seeds))}")
        return judge(gains, margin=margin, family=family, level=self.levels[self.seeds.index(count)])
