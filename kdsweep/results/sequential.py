"""Sequential testing: judge a gain repeatedly while seeds are added, with at most 5 % false gains in total.

Testing at 5 % after every added seed and stopping at the first success gives far more than 5 % false gains. Alpha
spending (Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials", Biometrika 70) distributes the 5 %
over the looks: little at the first ones, most at the last one.

    plan = LookPlan((3, 5, 7, 9, 11))
    verdict = plan.judge(gains)  # with 3 seeds, then 5, ..., until it is decided or the plan ends

The levels are derived for a z test on growing data. At each look `gains.judge` applies that look's level to its own
tests, and reports the interval of the corresponding confidence (a repeated confidence interval, Jennison and Turnbull
1989). `tests/results/test_sequential.py` checks the error rate by simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from kdsweep.errors import KdsweepError
from kdsweep.results.gains import LEVEL, MARGIN, Key, Verdict, judge, judge_all

Spending = Callable[[float, float], float]

_NORMAL = NormalDist()
_GRID = 301
_TAIL = 8.0  # standard deviations; the normal distribution has no weight beyond


def obrien_fleming(information: float, level: float) -> float:
    """Part of a one-sided `level` spent when a fraction `information` of the seeds is available: little at first."""
    return 2 * (1 - _NORMAL.cdf(_NORMAL.inv_cdf(1 - level / 2) / math.sqrt(information)))


def pocock(information: float, level: float) -> float:
    """As `obrien_fleming`, but spent nearly evenly: stops earlier, and has less power at the last look."""
    return level * math.log(1 + (math.e - 1) * information)


def nominal_levels(
    seeds: Sequence[int], level: float = LEVEL, spending: Spending = obrien_fleming
) -> tuple[float, ...]:
    """Two-sided level of each look.

    Args:
        seeds: Number of paired seeds at each look, increasing; the last is the maximum.
        level: Two-sided error rate of all looks together; half of it is spent on each side.
        spending: The spending function.

    Source: the recursion of Armitage, McPherson and Rowe 1969, "Repeated significance tests on accumulating data".
    """
    times = [count / seeds[-1] for count in seeds]
    spent = [spending(time, level / 2) for time in times]
    levels: list[float] = []
    values, density, before = np.zeros(1), np.ones(1), 0.0  # of the sum so far, if no look has stopped
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
    """Bound that a sum exceeds after one normal step with probability `share`, by bisection."""
    low, high = 0.0, _TAIL
    for _ in range(50):
        middle = (low + high) / 2
        passed = float(weights @ [_NORMAL.cdf((value - middle) / step) for value in values])
        low, high = (middle, high) if passed > share else (low, middle)
    return high


def _simpson(bound: float) -> np.ndarray:
    """Simpson's weights for integrating over the grid from -bound to bound."""
    weights = np.full(_GRID, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return weights * (2 * bound / (_GRID - 1) / 3)


@dataclass(frozen=True)
class LookPlan:
    """The looks, fixed before the first one.

    Attributes:
        seeds: Number of paired seeds at each look, increasing; the last is the maximum.
        level: Error rate of all looks together.
        spending: The spending function.
    """

    seeds: tuple[int, ...]
    level: float = LEVEL
    spending: Spending = obrien_fleming

    def __post_init__(self) -> None:
        if not self.seeds or self.seeds[0] < 2 or any(b <= a for a, b in zip(self.seeds, self.seeds[1:], strict=False)):
            raise KdsweepError(
                f"looks at {list(self.seeds)} seeds; accepted: an increasing list that starts at 2 or more"
            )

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Two-sided level of each look."""
        return nominal_levels(self.seeds, self.level, self.spending)

    def judge(self, gains: ArrayLike, *, margin: float = MARGIN, family: int = 1) -> Verdict:
        """Judge a gain at one look. Failed seeds (NaN) count towards the number of seeds.

        Args:
            gains: [S] paired differences; S must be one of the plan's looks.
            margin: Largest difference that does not matter; 0 rules out the verdict `same`.
            family: Number of comparisons made together.

        Raises:
            KdsweepError: If no look is planned at S seeds.
        """
        return judge(gains, margin=margin, family=family, level=self._level(len(np.asarray(gains))))

    def judge_all(self, gains: Mapping[Key, ArrayLike], *, margin: float = MARGIN) -> dict[Key, Verdict]:
        """Judge several gains at one look, with p corrected by Holm's method; otherwise as `judge`.

        At each look, Bonferroni's bound holds for the first false verdict, so the error rate over all looks and gains
        is at most `level`.
        """
        (count,) = {len(np.asarray(values)) for values in gains.values()}
        return judge_all(gains, margin=margin, level=self._level(count))

    def _level(self, count: int) -> float:
        if count not in self.seeds:
            raise KdsweepError(f"no look is planned at {count} seeds; accepted: {', '.join(map(str, self.seeds))}")
        return self.levels[self.seeds.index(count)]
