"""Judges whether a gain over seeds is real: mean, confidence interval, p-value and verdict.

The input is one paired difference per seed: the student's metric minus that of the plain student with the same seed.
The verdict is reached in three steps:

1. Compute p, the larger of two p-values: that of the exact sign-flip test (Fisher 1935, "The Design of Experiments"),
   and that of a paired t test times 1.4. The sign-flip test is exact if the differences are symmetric around their
   mean. The t test is exact if they are normal; the factor 1.4 allows for skew.
   With S seeds the smallest possible p of the sign-flip test is 2 / 2^S. It can therefore detect a gain of a single
   student from 6 seeds on, and in a family of 8 comparisons from 9 seeds on. With fewer seeds it could never detect
   anything, so only the t test is used. This choice depends on the number of seeds and on the size of the family, and
   never on the data.
2. Correct p for all comparisons made together (Holm 1979).
3. Choose the verdict:
   `gain` or `loss` if p is at most the level and the confidence interval excludes zero;
   `same` if the interval lies within -margin..margin (an equivalence test, Schuirmann 1987);
   `undecided` otherwise. `more_seeds` then estimates how many further seeds would decide.

The confidence interval is Student's t below 5 seeds, and a bias-corrected and accelerated bootstrap (BCa, Efron 1987)
from 5 seeds on. With few seeds a plain bootstrap interval is too narrow. It is widened by sqrt(S / (S - 1)) and by
replacing normal quantiles with t quantiles (Hesterberg 2015, "What teachers should know about the bootstrap").

Limitation: with few seeds no test keeps its error rate if the differences are strongly skewed, because most samples do
not contain the long tail. `benchmarks/gains.py` measures the resulting error rate.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdsweep.results import student_t
from kdsweep.tasks.metrics import HALF_A_POINT, is_fraction, shown_gain
from kdsweep.words import count_of

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)
Outcome = Literal["gain", "loss", "same", "undecided"]

LEVEL = 0.05
MARGIN = HALF_A_POINT
POWER = 0.8
MOST_SEEDS = 100  # of `more_seeds`
PILOT_SEEDS = 5  # enough to detect a gain of two standard deviations

_BOOTSTRAP_FROM = 5
_RESAMPLES = 10_000
_ENUMERATED = 16
_SAMPLED_FLIPS = 2**15
_SKEW_ALLOWANCE = 1.4
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Verdict:
    """The verdict on a gain.

    Attributes:
        mean: Mean of the differences, in the unit of the metric; NaN if there are none.
        low: Lower end of the confidence interval of the mean; NaN with fewer than two seeds.
        high: Upper end of the interval.
        p: Two-sided p-value, corrected for the family; 1 with fewer than two seeds.
        verdict: `gain`, `loss`, `same` (no difference larger than the margin) or `undecided`.
        more_seeds: Estimated number of further paired seeds that would decide with a power of 80 %, if mean and spread
            stay the same. At most `MOST_SEEDS`, which means that many or more; 0 if the verdict is not `undecided`.
        seeds: Number of pairs judged.
        failed: Number of pairs left out because at least one of the two runs failed.
        margin: Largest difference that does not matter; 0 means that no difference is too small to matter.
        level: The error rate; the interval has a confidence of 1 - level.
    """

    mean: float
    low: float
    high: float
    p: float
    verdict: Outcome
    more_seeds: int
    seeds: int
    failed: int = 0
    margin: float = MARGIN
    level: float = LEVEL

    def text(self, metric: str) -> str:
        """Describe the verdict in words: "+1.10 points (95 % CI +0.90 to +1.30), gain".

        Args:
            metric: Name of the metric; differences of accuracies are given in percentage points.
        """
        unit = " points" if is_fraction(metric) else ""
        confidence = f"{100 * (1 - self.level):.4g} % CI " if self.seeds > 1 else ""
        measured = f"{shown_gain(metric, self.mean)}{unit} ({confidence}{self.ends(metric)})"
        return f"{measured if self.seeds else 'not measured'}, {self.conclusion(metric)}"

    def ends(self, metric: str) -> str:
        """Format the ends of the interval: "+0.90 to +1.30"; without an interval, say why."""
        if self.seeds < 2:
            return "one seed" if self.seeds else "no seed"
        return f"{shown_gain(metric, self.low)} to {shown_gain(metric, self.high)}"

    def conclusion(self, metric: str) -> str:
        """Describe the verdict without the numbers: "gain", "undecided: about 8 more seeds"."""
        margin = f"{100 * self.margin:g} points" if is_fraction(metric) else f"{self.margin:g}"
        # An interval on one side of zero looks like a verdict; it is not corrected for the other students, p is.
        beside = (self.low > 0 or self.high < 0) and self.p > self.level
        why = f" (corrected p {self.p:.2g})" if beside else ""
        words = {"same": f"no difference larger than {margin}", "undecided": f"undecided{why}: {self._more()}"}
        failed = f" ({self.failed} of {self.seeds + self.failed} seeds failed)" if self.failed else ""
        return words.get(self.verdict, self.verdict) + failed

    def _more(self) -> str:
        if self.seeds < 2:
            return f"at least {count_of(self.more_seeds, 'more seed')}"
        if self.more_seeds >= MOST_SEEDS:
            return f"{MOST_SEEDS} or more seeds would be needed"
        return f"about {count_of(self.more_seeds, 'more seed')}"


def judge(gains: ArrayLike, *, margin: float = MARGIN, family: int = 1, level: float = LEVEL) -> Verdict:
    """Judge the gain of one student.

    Args:
        gains: [S] paired differences; NaN where a seed failed.
        margin: Largest difference that does not matter, in the unit of the metric; 0 rules out the verdict `same`.
        family: Number of comparisons made together; p is multiplied by it (Bonferroni). If all of them are available,
            `judge_all` has more power.
        level: The error rate. Repeated looks at growing data need a lower one, see `sequential`.
    """
    found, failed = _finite(gains)
    p = min(1.0, family * float(p_values(found[None], family=family, level=level)[0]))
    return _verdict(found, failed, p, margin, family, level)


def judge_all(gains: Mapping[Key, ArrayLike], *, margin: float = MARGIN, level: float = LEVEL) -> dict[Key, Verdict]:
    """Judge all comparisons made together, with p corrected by Holm's method.

    Args:
        gains: [S] paired differences of each comparison; S may differ, NaN where a seed failed.
        margin: Largest difference that does not matter, in the unit of the metric; 0 rules out the verdict `same`.
        level: Probability that at least one verdict `gain` or `loss` is false if there are no gains at all.
    """
    family = len(gains)
    found = {key: _finite(values) for key, values in gains.items()}
    ps = holm([float(p_values(values[None], family=family, level=level)[0]) for values, _ in found.values()])
    return {
        key: _verdict(values, failed, p, margin, family, level)
        for (key, (values, failed)), p in zip(found.items(), ps, strict=True)
    }


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values so that the probability of any false rejection is at most the level.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6.
    """
    adjusted, largest = [0.0] * len(ps), 0.0
    for done, index in enumerate(np.argsort(ps, kind="stable")):
        largest = max(largest, min(1.0, (len(ps) - done) * ps[index]))
        adjusted[index] = largest
    return adjusted


def p_values(gains: Floats, *, family: int = 1, level: float = LEVEL) -> Floats:
    """Uncorrected two-sided p-values of the hypothesis that the mean gain is zero, for several students at once.

    Each is the larger of the sign-flip p and 1.4 times the t-test p, or the latter alone if the sign-flip test cannot
    reach level / family.

    Args:
        gains: [N, S] paired differences, finite.
        family: Number of comparisons for which the p-values will be corrected.
        level: The level to which the corrected p-values will be compared.

    Returns:
        [N]; all 1 with fewer than two seeds.
    """
    students, seeds = gains.shape
    if seeds < 2:
        return np.ones(students)
    sums = np.abs(gains.sum(axis=1, keepdims=True))
    by_flips = (np.abs(gains @ _signs(seeds).T) >= sums * (1 - 1e-9)).mean(axis=1)
    mean, std = gains.mean(axis=1), gains.std(axis=1, ddof=1)
    spread = std > 1e-9 * np.abs(mean)  # t is undefined for equal differences
    t = np.divide(mean * math.sqrt(seeds), std, out=np.zeros(students), where=spread)
    by_t = np.minimum(1.0, _SKEW_ALLOWANCE * student_t.two_sided_p(t, seeds - 1))
    both = np.maximum(by_t, by_flips) if smallest_flip_p(seeds) <= level / family else by_t
    return np.where(spread, both, by_flips)


def smallest_flip_p(seeds: int) -> float:
    """Smallest possible p of the sign-flip test: 2 / 2^S, or 1 / (number of sampled flips) beyond 16 seeds."""
    return 2.0 ** (1 - min(seeds, _ENUMERATED))


def interval(gains: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Confidence interval of the mean: Student's t below 5 values, BCa bootstrap from 5 on.

    Args:
        gains: [S] values, finite.
        level: One minus the confidence.

    Returns:
        Both ends; NaN with fewer than two values, and equal to the mean if all values are equal.

    Source: Efron 1987, "Better bootstrap confidence intervals", JASA 82; widened as in Hesterberg 2015, "What teachers
    should know about the bootstrap", The American Statistician 69.
    """
    seeds = len(gains)
    if seeds < 2:
        return math.nan, math.nan
    mean, std = float(gains.mean()), float(gains.std(ddof=1))
    t = student_t.quantile(level, seeds - 1)
    if seeds < _BOOTSTRAP_FROM:
        half = t * std / math.sqrt(seeds)
        return mean - half, mean + half
    off = gains - mean
    if float((off**2).sum()) <= (1e-9 * mean) ** 2:
        return mean, mean
    means = _resampling(seeds) @ gains
    tied = np.abs(means - mean) <= 1e-9 * std
    below = (np.count_nonzero((means < mean) & ~tied) + tied.sum() / 2) / len(means)
    bias = _NORMAL.inv_cdf(below)
    acceleration = float((off**3).sum()) / (6 * float((off**2).sum()) ** 1.5)
    ends = [_bca_level(bias, acceleration, sign * t * math.sqrt(seeds / (seeds - 1))) for sign in (-1, 1)]
    low, high = np.quantile(means, ends, method="inverted_cdf")
    return float(low), float(high)


def _bca_level(bias: float, acceleration: float, z: float) -> float:
    """Quantile level of the bootstrap distribution that is the end `z` standard errors from the mean."""
    shifted = bias + z
    scale = 1 - acceleration * shifted
    return _NORMAL.cdf(bias + shifted / scale) if scale > 0 else float(z > 0)


def _verdict(gains: Floats, failed: int, p: float, margin: float, family: int, level: float) -> Verdict:
    seeds = len(gains)
    mean = float(gains.mean()) if seeds else math.nan
    low, high = interval(gains, level)
    known = (
        low < high or smallest_flip_p(seeds) <= level / family
    )  # equal differences say nothing about the spread; many of them do
    decided: Outcome = "undecided"
    if p <= level and (low > 0 or high < 0):
        decided = "gain" if mean > 0 else "loss"
    elif known and -margin <= low and high <= margin:
        decided = "same"
    more = _more_seeds(gains, margin, family, level) if decided == "undecided" else 0
    return Verdict(mean, low, high, p, decided, more, seeds, failed, margin, level)


def _more_seeds(gains: Floats, margin: float, family: int, level: float) -> int:
    """Estimate how many further seeds would find a gain or rule out a difference, whichever needs fewer."""
    seeds = len(gains)
    if seeds < 2:
        return PILOT_SEEDS - seeds
    mean, std = abs(float(gains.mean())), float(gains.std(ddof=1))
    if std <= 1e-9 * mean:
        wanted = 1 - math.log2(level / family)
    else:
        gain = _seeds_of_test(mean / std, level / family / _SKEW_ALLOWANCE, POWER)
        wanted = min(gain, _seeds_of_test((margin - mean) / std, level, (1 + POWER) / 2))
    return min(MOST_SEEDS, max(1, math.ceil(wanted - 1e-9) - seeds)) if wanted < math.inf else MOST_SEEDS


def _seeds_of_test(effect: float, level: float, power: float) -> float:
    """Number of seeds needed to detect an effect, given in standard deviations; infinite if the effect is not positive.

    The sample size of a z test plus a correction for the t test (Guenther 1981, The American Statistician 35).
    """
    if effect <= 0:
        return math.inf
    critical = _NORMAL.inv_cdf(1 - level / 2)
    return ((critical + _NORMAL.inv_cdf(power)) / effect) ** 2 + critical**2 / 2


def _finite(gains: ArrayLike) -> tuple[Floats, int]:
    """Return the finite differences, and the number of the others."""
    values = np.asarray(gains, dtype=float)
    found = values[np.isfinite(values)]
    return found, len(values) - len(found)


@lru_cache(maxsize=32)
def _signs(seeds: int) -> Floats:
    """[F, S] sign flips. Up to 16 seeds half of them (the other half mirrors these), beyond that a random sample."""
    if seeds <= _ENUMERATED:
        bits = np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds) & 1
        return np.where(bits, -1.0, 1.0)
    drawn = np.where(np.random.default_rng(seeds).random((_SAMPLED_FLIPS, seeds)) < 0.5, -1.0, 1.0)
    drawn[0] = 1.0  # the observed signs are one of the flips, so p is never 0
    return drawn


@lru_cache(maxsize=32)
def _resampling(seeds: int) -> Floats:
    """[B, S] weight of each value in each bootstrap resample."""
    drawn = np.random.default_rng(seeds).multinomial(seeds, [1 / seeds] * seeds, size=_RESAMPLES)
    return drawn / seeds
