"""Chooses which candidate to train next on a fresh seed, to identify the best candidate with few trainings.

Giving every candidate the same number of seeds wastes trainings on candidates that are clearly not the best. Two rules
do better. In `benchmarks/gains.py` they are equally good, and better than three seeds for each of the top 3 or six for
each of them at the same number of trainings. Confirmation uses `halving`: its rounds are parallel.

A candidate's values are its validation results on fresh seeds, higher is better. A failed training is NaN and counts
as a training. A candidate is dropped if all its trainings so far have failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import count
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Key = TypeVar("Key", bound=Hashable)
Rule = Callable[[Mapping[Key, Sequence[float]], int], Key | None]

_NEARLY_ZERO = 1e-9


def candidates_for(trainings: int) -> int:
    """Number of candidates that `halving` can compare with this many trainings: half as many, at least one."""
    return max(1, trainings // 2)


def halving(values: Mapping[Key, Sequence[float]], remaining: int) -> Key | None:
    """One run for every candidate, a second for the best half, a third for the best quarter, ..., then the top two.

    Candidates are ranked by their current means at every call, so a candidate that was dropped returns if those ahead
    of it get worse.

    Args:
        values: One value per finished training for each candidate; candidates in the order of the search, best first.
        remaining: Number of trainings left.

    Returns:
        The candidate to train next; None if no training or no candidate is left.

    Source: sequential halving, Karnin et al. 2013, "Almost optimal exploration in multi-armed bandits".
    """
    order = ranking(values)
    if remaining < 1 or not order:
        return None
    for runs in count(1):
        for candidate in order[: max(2, len(order) >> (runs - 1))]:
            if len(values[candidate]) < runs:
                return candidate
    raise AssertionError("unreachable")


def ocba(values: Mapping[Key, Sequence[float]], remaining: int) -> Key | None:
    """One run for every candidate, then always the candidate furthest below its optimal share.

    Assumes the same spread over seeds for all candidates, because one to six values are too few to estimate it.
    Arguments and result are those of `halving`.
    """
    order = ranking(values)
    if remaining < 1 or not order:
        return None
    counts = np.array([len(values[candidate]) for candidate in order])
    if not counts.all():
        return order[int(np.argmin(counts))]
    if len(order) == 1:
        return order[0]
    means = [mean_of(values[candidate]) for candidate in order]
    wanted = ocba_shares(means, np.ones(len(order))) * (counts.sum() + 1)
    return order[int(np.argmax(wanted - counts))]


next_run = halving


def next_runs(
    values: Mapping[Key, Sequence[float]],
    remaining: int,
    at_once: int,
    running: Sequence[Key] = (),
    rule: Rule[Key] = halving,
) -> list[Key]:
    """Choose several trainings to start now, assuming that each pending one returns its candidate's mean.

    Args:
        values: As for `halving`.
        remaining: Number of trainings left to start.
        at_once: Number of trainings that can start now.
        running: Candidates of the trainings that are still running.
        rule: The rule that chooses the next one.

    Returns:
        At most `at_once` candidates; a candidate may appear more than once.
    """
    assumed = {candidate: list(found) for candidate, found in values.items()}
    overall = mean_of([value for found in values.values() for value in found])

    def assume(candidate: Key) -> None:
        mean = mean_of(assumed[candidate])
        assumed[candidate].append(next((value for value in (mean, overall) if math.isfinite(value)), 0.0))

    for busy in running:
        assume(busy)
    chosen: list[Key] = []
    while len(chosen) < at_once and (candidate := rule(assumed, remaining - len(chosen))) is not None:
        assume(candidate)
        chosen.append(candidate)
    return chosen


def next_round(values: Mapping[Key, Sequence[float]], remaining: int) -> list[Key]:
    """Choose the next round of `halving`: every candidate, then the best half, the best quarter, ..., then the top two.

    Unlike `next_runs`, this does not depend on which trainings are still running, if it is called between rounds only.

    Args:
        values: As for `halving`; no training is running.
        remaining: Number of trainings left to start.

    Returns:
        The candidates to train, one training each; a candidate may appear more than once. Empty at the end.
    """
    new = sum(not found for found in values.values())
    most = max((len(found) for found in values.values()), default=0)
    return next_runs(values, remaining, at_once=new or max(2, len(ranking(values)) >> most))


def ranking(values: Mapping[Key, Sequence[float]]) -> list[Key]:
    """Candidates from the highest mean to the lowest. Those without a value come first, in the order given.

    Candidates whose trainings have all failed are left out.
    """
    alive = [candidate for candidate, found in values.items() if not found or math.isfinite(mean_of(found))]
    return sorted(alive, key=lambda candidate: -mean_of(values[candidate]) if values[candidate] else -math.inf)


def mean_of(values: Sequence[float]) -> float:
    """Mean of the finite values; NaN if there are none."""
    found = [value for value in values if math.isfinite(value)]
    return sum(found) / len(found) if found else math.nan


def ocba_shares(means: ArrayLike, spreads: ArrayLike) -> NDArray[np.float64]:
    """Share of the trainings for each candidate that maximises the probability of identifying the best.

    Args:
        means: [N] means of the candidates, higher is better.
        spreads: [N] standard deviations over seeds, positive.

    Returns:
        [N] shares that sum to 1.

    Source: optimal computing budget allocation, Chen et al. 2000, "Simulation budget allocation for further enhancing
    the efficiency of ordinal optimization", theorem 1.
    """
    means, spreads = np.asarray(means, dtype=float), np.asarray(spreads, dtype=float)
    best = int(np.argmax(means))
    behind = np.maximum(means[best] - means, _NEARLY_ZERO)
    shares = (spreads / behind) ** 2
    shares[best] = 0.0
    shares[best] = spreads[best] * math.sqrt(float(((shares / spreads) ** 2).sum()))
    return np.asarray(shares / shares.sum())
