"""Tuning curves: how good the best of n trials is expected to be, for a fair look at methods and budgets."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from kdsweep.errors import KdsweepError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95

_SAMPLES = 20_000
_DRAWN = 4_000_000  # numbers held at once


def tuning_curve(
    values: ArrayLike, n: int, *, confidence: float = CONFIDENCE, support: tuple[float, float] = (0.0, 1.0)
) -> pd.DataFrame:
    """The expected best of 1 to n random trials, with a band that holds the whole curve.

    The estimate is the expected maximum of n draws with replacement from the values. With n beyond N it can only
    approach their maximum. The band comes from a band around the distribution function: its upper limits give `low`
    and its lower limits give `high`. As n grows, `high` approaches the end of `support`: N trials cannot say what the
    best of many more would reach.

    Args:
        values: [N] final values of trials drawn at random, not proposed from earlier results. Higher is better. NaN
            (failed) is left out.
        n: The length of the curve.
        confidence: Of the band, for all n at once.
        support: The lowest and the highest value that there can be.

    Returns:
        One row per number of trials: n, expected_best, low, high.

    Raises:
        KdsweepError: If no value is left, or one is outside `support`.

    Sources: Dodge et al. 2019, "Show your work", arXiv:1909.03004, for the estimate; Lourie et al. 2024, "Show your
    work with confidence", arXiv:2311.09480, for bands of tuning curves from bands of distribution functions.
    """
    found = np.asarray(values, dtype=float)
    found = np.sort(found[np.isfinite(found)])
    lowest, highest = support
    if not len(found) or found[0] < lowest or found[-1] > highest:
        between = f"{found[0]:g} to {found[-1]:g}" if len(found) else "none"
        raise KdsweepError(f"tuning curve: values {between}; accepted: at least one, from {lowest:g} to {highest:g}")
    trials = np.arange(1, n + 1)
    least, most = distribution_band(len(found), confidence)
    steps = np.arange(1, len(found)) / len(found)
    return pd.DataFrame({
        "n": trials,
        "expected_best": _expected_best(found, steps, trials),
        "low": _expected_best(np.array([lowest, *found]), most, trials),
        "high": _expected_best(np.array([*found, highest]), least, trials),
    })  # fmt: skip


def _expected_best(points: Floats, below: Floats, trials: NDArray[np.int_]) -> Floats:
    """The expected largest of n draws from a step function: the last point less the integral of its n-th power.

    Args:
        points: [K] ascending; the function is 0 before the first and 1 from the last.
        below: [K - 1] its value between each two.
        trials: [T] each n.
    """
    return np.asarray(points[-1] - below[None, :] ** trials[:, None] @ np.diff(points))


@lru_cache(maxsize=16)
def distribution_band(count: int, confidence: float) -> tuple[Floats, Floats]:
    """A simultaneous band around a distribution function at its N ordered draws.

    Every limit is the same quantile of the uniform order statistic of its rank, so the band is narrow at the best
    trials, where a tuning curve needs it; a band of constant width (Dvoretzky, Kiefer and Wolfowitz) is not. The
    quantile that gives the confidence is found by simulation with a fixed seed.

    Returns:
        [N] lower and [N] upper limits: with `confidence`, F(x_(i)) lies between them for every i.

    Source: Aldor-Noiman et al. 2013, "The power to see: a new graphical test of normality", The American Statistician
    67.
    """
    samples = int(np.clip(_DRAWN // count, 2000, _SAMPLES))
    drawn = np.sort(np.random.default_rng(count).random((samples, count)), axis=1)
    ranks = np.argsort(np.argsort(drawn, axis=0), axis=0)
    outermost = np.minimum(ranks, samples - 1 - ranks).min(axis=1)
    cut = int(np.quantile(outermost, 1 - confidence, method="lower"))
    ordered = np.sort(drawn, axis=0)
    return ordered[cut], ordered[samples - 1 - cut]
