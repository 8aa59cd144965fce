"""Whether a gain over seeds is real: mean, interval, p and a verdict.

How a verdict is reached. The differences are paired: student less plain student, seed by seed.

1. p is the larger of two: that of the exact sign-flip test (Fisher 1935, "The Design of Experiments") and that of a
   paired t test, times 1.4. The sign-flip test is exact where a difference is as likely as its negative. The t test
   is exact where differences are normal; the factor leaves room for skewed noise.
   With S seeds the smallest p of sign flips is 2 / 2^S: it can find a gain of one student from 6 seeds, and of a
   family of 8 from 9. With fewer seeds it could never find one, so t decides alone. Which of the two applies depends
   on the number of seeds and the size of the family, never on the data.
2. p is corrected for everything that was confirmed together (Holm 1979).
3. `gain` or `loss`: p is at most the level and the interval of the mean excludes zero.
   `same`: the interval lies within -margin..margin (a test of equivalence, Schuirmann 1987).
   `undecided`: anything else; `more_seeds` then says how many more would decide.

The interval is Student's t below 5 seeds and a bias-corrected and accelerated bootstrap (BCa, Efron 1987) from 5 seeds
up. A plain bootstrap interval is too narrow with few seeds, so its ends are moved out by sqrt(S / (S - 1)) and from
the normal to the t quantile (Hesterberg 2015, "What teachers should know about the bootstrap").

A limit: with few seeds no test holds its level when the differences themselves are strongly skewed, because most
samples miss the long tail. `benchmarks/gains.py` measures how large the error then is.
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

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

LEVEL = 0.05
MARGIN = 0.005  # half a point of accuracy
POWER = 0.8
MOST_SEEDS = 100  # of `more_seeds`
PILOT_SEEDS = 5  # what it takes to find a gain of two spreads

_BOOTSTRAP_FROM = 5
_RESAMPLES = 10_000
_ENUMERATED = 16
_SAMPLED_FLIPS = 2**15
_SKEW_ALLOWANCE = 1.4
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Verdict:
    """What paired seeds say of a gain.

    Attributes:
        mean: Of the differences, a fraction; NaN without any.
        low: Lower end of the interval of the mean; NaN with fewer than two seeds.
        high: Its upper end.
        p: Two-sided, corrected for the family; 1 with fewer than two seeds.
        verdict: `gain`, `loss`, `same` (no difference larger than the margin) or `undecided`.
        more_seeds: About how many more paired seeds would decide with a power of 80 %, if mean and spread stay what
            they are; at most `MOST_SEEDS`, which means that many or more; 0 once decided.
        seeds: The pairs that were judged.
        failed: Those left out because one of the two has no result.
        margin: What counts as no difference, a fraction.
        level: The error rate; the interval holds 1 - level.
    """

    mean: float
    low: float
    high: float
    p: float
    verdict: Literal["gain", "loss", "same", "undecided"]
    more_seeds: int
    seeds: int
    failed: int = 0
    margin: float = MARGIN
    level: float = LEVEL

    def text(self) -> str:
        """In plain words, in points: "+1.2 points (95 % CI +0.4 to +2.0), a gain"."""
        conclusions = {
            "gain": "a gain",
            "loss": "a loss",
            "same": f"no difference larger than {100 * self.margin:g} points",
            "undecided": f"undecided: {self._more()}",
        }
        failed = f" ({self.failed} of {self.seeds + self.failed} seeds failed)" if self.failed else ""
        return f"{self._measured()}, {conclusions[self.verdict]}{failed}"

    def _measured(self) -> str:
        if self.seeds == 0:
            return "not measured"
        if self.seeds == 1:
            return f"{_points(self.mean)} points (one seed)"
        confidence = f"{100 * (1 - self.level):.4g} %"
        return f"{_points(self.mean)} points ({confidence} CI {_points(self.low)} to {_points(self.high)})"

    def _more(self) -> str:
        plural = "s" if self.more_seeds > 1 else ""
        if self.seeds < 2:
            return f"at least {self.more_seeds} more seed{plural}"
        if self.more_seeds >= MOST_SEEDS:
            return f"{MOST_SEEDS} or more seeds would be needed"
        return f"about {self.more_seeds} more seed{plural}"


def judge(gains: ArrayLike, *, margin: float = MARGIN, family: int = 1, level: float = LEVEL) -> Verdict:
    """Judge the gain of one student.

    Args:
        gains: [S] paired differences, fractions; NaN where a seed failed.
        margin: A difference that does not matter, a fraction.
        family: How many comparisons this is one of: p is multiplied by it (Bonferroni). Where all are at hand,
            `judge_all` finds more.
        level: The error rate. Lower when one looks repeatedly, see `sequential`.
    """
    found, failed = _finite(gains)
    p = min(1.0, family * float(p_values(found[None], family=family, level=level)[0]))
    return _verdict(found, failed, p, margin, family, level)


def judge_all(gains: Mapping[Key, ArrayLike], *, margin: float = MARGIN, level: float = LEVEL) -> dict[Key, Verdict]:
    """Judge everything that was confirmed together, with p corrected by Holm's method.

    Args:
        gains: [S] paired differences of each comparison, fractions; S may differ, NaN where a seed failed.
        margin: A difference that does not matter, a fraction.
        level: The chance that any of the verdicts `gain` and `loss` is false, if there is no gain anywhere.
    """
    family = len(gains)
    found = {key: _finite(values) for key, values in gains.items()}
    ps = holm([float(p_values(values[None], family=family, level=level)[0]) for values, _ in found.values()])
    return {
        key: _verdict(values, failed, p, margin, family, level)
        for (key, (values, failed)), p in zip(found.items(), ps, strict=True)
    }


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values so that those below a level are false with at most that chance for all of them together.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6.
    """
    adjusted, largest = [0.0] * len(ps), 0.0
    for done, index in enumerate(np.argsort(ps, kind="stable")):
        largest = max(largest, min(1.0, (len(ps) - done) * ps[index]))
        adjusted[index] = largest
    return adjusted


def p_values(gains: Floats, *, family: int = 1, level: float = LEVEL) -> Floats:
    """Two-sided p that a mean gain is zero, of many students with equally many seeds, not corrected.

    The larger p of sign flips and of t times 1.4, but that of t alone where flips cannot reach level / family.

    Args:
        gains: [N, S] paired differences, finite.
        family: How many comparisons the p-values will be corrected for.
        level: The level that they will be held against.

    Returns:
        [N]; all 1 with fewer than two seeds.
    """
    students, seeds = gains.shape
    if seeds < 2:
        return np.ones(students)
    sums = np.abs(gains.sum(axis=1, keepdims=True))
    by_flips = (np.abs(gains @ _signs(seeds).T) >= sums * (1 - 1e-9)).mean(axis=1)
    mean, std = gains.mean(axis=1), gains.std(axis=1, ddof=1)
    spread = std > 1e-9 * np.abs(mean)  # equal differences have no spread to compare the mean with
    t = np.divide(mean * math.sqrt(seeds), std, out=np.zeros(students), where=spread)
    by_t = np.minimum(1.0, _SKEW_ALLOWANCE * student_t.two_sided_p(t, seeds - 1))
    both = np.maximum(by_t, by_flips) if smallest_flip_p(seeds) <= level / family else by_t
    return np.where(spread, both, by_flips)


def smallest_flip_p(seeds: int) -> float:
    """The smallest p that the sign-flip test can give: 2 / 2^S, or one in all flips tried beyond 16 seeds."""
    return 2.0 ** (1 - min(seeds, _ENUMERATED))


def interval(gains: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The interval that holds the mean with a confidence of 1 - level: t below 5 values, BCa from 5 up.

    Args:
        gains: [S] values, finite.
        level: The chance that the interval misses the mean.

    Returns:
        Its ends; NaN with fewer than two values, twice the mean where all values are equal.

    Source: Efron 1987, "Better bootstrap confidence intervals", JASA 82; its ends moved out as in Hesterberg 2015,
    "What teachers should know about the bootstrap", The American Statistician 69.
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
    """The share of the bootstrap distribution below an end that would be `z` standard errors away."""
    shifted = bias + z
    scale = 1 - acceleration * shifted
    return _NORMAL.cdf(bias + shifted / scale) if scale > 0 else float(z > 0)


def _verdict(gains: Floats, failed: int, p: float, margin: float, family: int, level: float) -> Verdict:
    seeds = len(gains)
    mean = float(gains.mean()) if seeds else math.nan
    low, high = interval(gains, level)
    known = low < high or smallest_flip_p(seeds) <= level / family  # equal differences: only many say something
    decided: Literal["gain", "loss", "same", "undecided"] = "undecided"
    if p <= level and (low > 0 or high < 0):
        decided = "gain" if mean > 0 else "loss"
    elif known and -margin <= low and high <= margin:
        decided = "same"
    more = _more_seeds(gains, margin, family, level) if decided == "undecided" else 0
    return Verdict(mean, low, high, p, decided, more, seeds, failed, margin, level)


def _more_seeds(gains: Floats, margin: float, family: int, level: float) -> int:
    """Seeds missing until a gain is found or a difference is excluded, whichever is nearer."""
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
    """How many seeds find an effect, in spreads; infinite if there is none.

    A z test's number, and what the t test needs beyond it (Guenther 1981, The American Statistician 35).
    """
    if effect <= 0:
        return math.inf
    critical = _NORMAL.inv_cdf(1 - level / 2)
    return ((critical + _NORMAL.inv_cdf(power)) / effect) ** 2 + critical**2 / 2


def _finite(gains: ArrayLike) -> tuple[Floats, int]:
    """The differences of seeds that did not fail, and how many did."""
    values = np.asarray(gains, dtype=float)
    found = values[np.isfinite(values)]
    return found, len(values) - len(found)


@lru_cache(maxsize=32)
def _signs(seeds: int) -> Floats:
    """[F, S] of -1 and 1: half of all flips up to 16 seeds, the other half mirrors them; beyond, a sample of them."""
    if seeds <= _ENUMERATED:
        bits = np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds) & 1
        return np.where(bits, -1.0, 1.0)
    drawn = np.where(np.random.default_rng(seeds).random((_SAMPLED_FLIPS, seeds)) < 0.5, -1.0, 1.0)
    drawn[0] = 1.0  # what was observed is one of the flips, so that p is never 0
    return drawn


@lru_cache(maxsize=32)
def _resampling(seeds: int) -> Floats:
    """[B, S] the share of each value in each bootstrap resample."""
    drawn = np.random.default_rng(seeds).multinomial(seeds, [1 / seeds] * seeds, size=_RESAMPLES)
    return drawn / seeds


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f}"
