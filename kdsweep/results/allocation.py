"""Which candidate is trained next from a fresh seed, so that few trainings name the truly best.

Equal seeds for all waste trainings on candidates that are clearly not the best. Two rules spend them better; in
`benchmarks/gains.py` they are equally good, and better than top 3 x 3 or 3 x 6 with the same number of trainings.
`next_run` is `halving`, because its rounds can be trained side by side.

A candidate's values are its validation accuracies from fresh seeds. A failed training is NaN and counts as a training.
A candidate is dropped when all its trainings so far have failed.
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
    """How many candidates a number of trainings can tell apart by `halving`: half as many, at least one."""
    return max(1, trainings // 2)


def halving(values: Mapping[Key, Sequence[float]], remaining: int) -> Key | None:
    """One run for all, a second for the best half, a third for the best quarter, ..., then the last two in turn.

    The order is that of the means so far, at every call: a candidate that was left behind comes back when those ahead
    of it fall.

    Args:
        values: Of each candidate, one value per finished training; the better candidate of the search first.
        remaining: Trainings left.

    Returns:
        The candidate to train next; None if nothing is left or nobody to choose from.

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
    """One run for all, then whoever lacks most of its optimal share.

    The spread over seeds is taken to be the same for all: with one to six values each, nothing better is known of it.
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
    """Several trainings to start now: each is chosen as if those before it had returned their candidate's mean.

    Args:
        values: As for `halving`.
        remaining: Trainings left to start.
        at_once: How many can be started.
        running: The candidates of trainings that have not ended yet.
        rule: Who is next.

    Returns:
        At most `at_once` candidates; one may appear more than once.
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


def ranking(values: Mapping[Key, Sequence[float]]) -> list[Key]:
    """The candidates from the highest mean to the lowest, those without a value first, in the order given.

    Without those of which every training failed.
    """
    alive = [candidate for candidate, found in values.items() if not found or math.isfinite(mean_of(found))]
    return sorted(alive, key=lambda candidate: -mean_of(values[candidate]) if values[candidate] else -math.inf)


def mean_of(values: Sequence[float]) -> float:
    """The mean of the trainings that did not fail; NaN without any."""
    found = [value for value in values if math.isfinite(value)]
    return sum(found) / len(found) if found else math.nan


def ocba_shares(means: ArrayLike, spreads: ArrayLike) -> NDArray[np.float64]:
    """Which share of the trainings each candidate should get to name the best with the highest probability.

    Args:
        means: [N] of the candidates, higher is better.
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
