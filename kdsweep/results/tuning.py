"""Tuning curves: the expected best result of n trials, for comparing methods at equal tuning effort."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from kdsweep.config.spec import SweepSpec
from kdsweep.errors import KdsweepError
from kdsweep.params import named
from kdsweep.results.sizes import columns_of
from kdsweep.search.baseline import PLAIN, PlainShare
from kdsweep.search.proposer import with_startup
from kdsweep.search.samplers import SAMPLERS
from kdsweep.search.section import sampler_of
from kdsweep.tasks.metrics import is_fraction

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
POOLED = "any method"

_COLUMNS = ("method", "n", "expected_best", "low", "high", "trials")
_SAMPLES = 20_000
_DRAWN = 4_000_000  # limits the memory


def tuning_curve(
    values: ArrayLike, n: int, *, confidence: float = CONFIDENCE, support: tuple[float, float] = (0.0, 1.0)
) -> pd.DataFrame:
    """Expected best of 1 to n random trials, with a simultaneous confidence band.

    The estimate is the expected maximum of n draws with replacement from the values. For n above N it cannot exceed
    the maximum observed. The band is derived from a band around the distribution function, whose upper limits give
    `low` and whose lower limits give `high`. As n grows, `high` approaches the upper end of `support`, because N trials
    cannot bound the best of many more.

    Args:
        values: [N] final values of trials drawn at random, independent of earlier results. Higher is better. NaN
            (failed trials) is ignored.
        n: Length of the curve.
        confidence: Confidence of the band, for all n together.
        support: The lowest and the highest possible value.

    Returns:
        One row per number of trials: n, expected_best, low, high.

    Raises:
        KdsweepError: If there is no finite value, or one is outside `support`.

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
    """Expected maximum of n draws from a distribution whose distribution function F is a step function.

    It is the last point minus the integral of F^n.

    Args:
        points: [K] the jumps, ascending; F is 0 before the first and 1 from the last on.
        below: [K - 1] value of F between neighbouring jumps.
        trials: [T] each n.
    """
    return np.asarray(points[-1] - below[None, :] ** trials[:, None] @ np.diff(points))


def tuning_curves(
    trials: pd.DataFrame, spec: SweepSpec, n: int, confidence: float, *, pooled: bool = False
) -> pd.DataFrame:
    """Tuning curves of every method; see `Results.tuning_curves`.

    Args:
        trials: The trials of one width, or of all.
        spec: The sweep.
        n: Length of the curves.
        confidence: Confidence of the bands.
        pooled: Whether all methods except plain students count as one, `POOLED`.
    """
    goal = spec.goal
    if pooled:
        trials = trials.assign(method=trials["method"].where(trials["method"] == PLAIN, POOLED))
    ended = trials[trials["state"].isin(["COMPLETE", "PRUNED"]) & trials[goal.column].notna()]
    curves = []
    for method, rows in ended[ended["trial"].isin(random_trials(trials, spec))].groupby("method"):
        scores = rows[goal.column].map(goal.score)
        if is_fraction(goal.name):
            curve = tuning_curve(scores, n, confidence=confidence)
        else:  # the band needs the range of possible values, which is unknown
            curve = tuning_curve(scores, n, confidence=confidence, support=(scores.min(), scores.max()))
            curve[["low", "high"]] = np.nan
        curve["expected_best"] = curve["expected_best"].map(goal.score)
        curves.append(curve.assign(method=method, trials=len(rows))[list(_COLUMNS)])
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=list(_COLUMNS))


def random_trials(trials: pd.DataFrame, spec: SweepSpec) -> list[str]:
    """Return the keys of the trials whose settings were drawn at random, independent of earlier results.

    Plain trials have histories of their own, per width, with a proportionally smaller number of random trials.
    """
    if named(spec.search.sampler)[0] not in SAMPLERS:
        return []  # a user-defined sampler may not be importable where results are read
    if spec.search.warm_start:
        return []  # what was drawn depends on the results of earlier sweeps
    sampler, points = sampler_of(spec.search), len(spec.search.points)
    drawn = trials.sort_values("number")
    drawn = drawn[drawn["number"] < sampler.random_trials(spec.search.trials)]
    drawn = drawn[drawn["space"] == 0]  # random trials of different spaces cannot be pooled
    share = PlainShare(spec.search_space, spec.search.plain_share)
    if share.active:
        own = with_startup(sampler, 1 / share.sizes).random_trials(spec.search.trials)
        place = drawn.groupby(["method", *columns_of(drawn)], dropna=False).cumcount()
        drawn = drawn[(drawn["method"] != PLAIN) | (place < own)]
    return list(drawn.loc[drawn["number"] >= points, "trial"])


@lru_cache(maxsize=16)
def distribution_band(count: int, confidence: float) -> tuple[Floats, Floats]:
    """Simultaneous confidence band for a distribution function at N ordered draws.

    All limits are the same quantile of the uniform order statistic of their rank. The band is therefore narrow at the
    best trials, where a tuning curve needs it, unlike a band of constant width (Dvoretzky, Kiefer and Wolfowitz). The
    quantile that gives the confidence is found by simulation with a fixed seed.

    Returns:
        [N] lower and [N] upper limits. With probability `confidence`, F(x_(i)) lies between them for every i.

    Source: Aldor-Noiman et al. 2013, "The power to see: a new graphical test of normality", The American Statistician
    67.
    """
    samples = int(np.clip(_DRAWN // count, 2000, _SAMPLES))
    drawn = np.ascontiguousarray(np.sort(np.random.default_rng(count).random((samples, count)), axis=1).T)
    order = np.argsort(drawn, axis=1)
    place = np.arange(samples)
    outermost = np.full(samples, samples)
    for row in order:  # each sample's distance from the end nearest to it, at every rank; the least one counts
        outermost[row] = np.minimum(outermost[row], np.minimum(place, samples - 1 - place))
    cut = int(np.quantile(outermost, 1 - confidence, method="lower"))
    return drawn[np.arange(count), order[:, cut]], drawn[np.arange(count), order[:, samples - 1 - cut]]
