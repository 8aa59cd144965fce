"""Pareto fronts: comparison of trials by several objectives at once.

Everywhere here a trial's scores are a row of numbers, one per objective, and higher is better. A row dominates another
if it is at least as good in every objective and better in one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = Sequence[float]


def ranks(scores: ArrayLike) -> NDArray[np.int64]:
    """Non-domination rank of each row: 0 on the front, 1 on the front of the others, and so on.

    Deb et al. 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II".

    Args:
        scores: [N, K].
    """
    rows = np.asarray(scores, dtype=float)
    better = np.zeros((len(rows), len(rows)), dtype=bool)  # whether one row dominates another
    for place, row in enumerate(rows):
        better[place] = (row >= rows).all(axis=1) & (row > rows).any(axis=1)
    dominating = better.sum(axis=0)  # how many rows dominate each
    found = np.full(len(rows), -1)
    for rank in range(len(rows)):
        front = (dominating == 0) & (found < 0)
        if not front.any():
            break
        found[front] = rank
        dominating -= better[front].sum(axis=0)
    return found


def crowding(scores: ArrayLike) -> NDArray[np.float64]:
    """Crowding distance of each row among the others of its front: large where there are few neighbours.

    The ends of every objective get infinity. Deb et al. 2002, section III B.

    Args:
        scores: [N, K], the rows of one front.
    """
    rows = np.asarray(scores, dtype=float)
    distance = np.zeros(len(rows))
    for column in rows.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distance[column == column[order[0]]] = np.inf
        distance[column == column[order[-1]]] = np.inf
        if spread > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def ahead(scores: Mapping[str, Scores], key: str) -> int:
    """Count the trials ahead of one: those of a better rank, then those of its rank in a less crowded place.

    Trials with equal scores are not ahead of each other.

    Args:
        scores: The scores of every trial, by key.
        key: The trial's key.
    """
    keys = list(scores)
    rows = np.array(list(scores.values()), dtype=float)
    found, mine = ranks(rows), keys.index(key)
    level = np.flatnonzero(found == found[mine])
    places = crowding(rows[level])
    own = places[np.flatnonzero(level == mine)[0]]
    equal = (rows[level] == rows[mine]).all(axis=1)
    return int((found < found[mine]).sum() + ((places > own) & ~equal).sum())


def order(scores: ArrayLike, then: Sequence[Sequence[float]] = ()) -> NDArray[np.int64]:
    """Positions of the rows from best to worst: by rank, then by the first objective.

    Args:
        scores: [N, K].
        then: Columns [N] that decide ties, ascending, the most important first.
    """
    rows = np.asarray(scores, dtype=float).reshape(len(scores), -1)  # type: ignore[arg-type]
    if not len(rows):
        return np.empty(0, dtype=np.int64)
    return np.lexsort([*reversed([np.asarray(column) for column in then]), -rows[:, 0], ranks(rows)])


def front(scores: ArrayLike) -> list[int]:
    """Positions of the rows that no row dominates, best first objective first; of equal rows only the first."""
    rows = np.asarray(scores, dtype=float)
    if not len(rows):
        return []
    best = np.flatnonzero(ranks(rows) == 0)
    _, first = np.unique(rows[best], axis=0, return_index=True)
    members = best[np.sort(first)]
    return [int(place) for place in members[np.argsort(-rows[members, 0], kind="stable")]]


def hypervolume(scores: ArrayLike, reference: Scores) -> float:
    """Volume that the rows dominate and the reference point does not exceed; exact, by slicing.

    Args:
        scores: [N, K]; rows that are not better than the reference in every objective contribute nothing.
        reference: [K], the scores that count as worthless.
    """
    rows = np.asarray(scores, dtype=float).reshape(-1, len(reference)) - np.asarray(reference, dtype=float)
    return _volume(rows[(rows > 0).all(axis=1)])


def _volume(rows: NDArray[np.float64]) -> float:
    if not len(rows):
        return 0.0
    if rows.shape[1] == 1:
        return float(rows.max())
    rows = rows[np.argsort(-rows[:, -1], kind="stable")]
    lower = [*rows[1:, -1], 0.0]
    # Between two heights of the last objective, the slice is what the rows above span in the other objectives.
    return math.fsum(
        (top - bottom) * _volume(rows[: place + 1, :-1])
        for place, (top, bottom) in enumerate(zip(rows[:, -1], lower, strict=True))
        if top > bottom
    )


def spread_out(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` positions, evenly spaced from the first to the last."""
    if count <= wanted:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, wanted)})


class Archive:
    """The trials that no other dominates. It does not depend on the order in which trials arrive."""

    def __init__(self) -> None:
        self._scores: dict[int, tuple[float, ...]] = {}

    def add(self, number: int, scores: Scores) -> None:
        """Add a trial, unless one dominates it, and drop those that it dominates."""
        new = tuple(scores)
        if any(_dominates(old, new) for old in self._scores.values()):
            return
        self._scores = {key: old for key, old in self._scores.items() if not _dominates(new, old)}
        self._scores[number] = new

    def least_crowded(self, most: int) -> Iterable[int]:
        """Numbers of at most `most` trials, the least crowded first; on a tie, the earliest."""
        numbers = sorted(self._scores)
        if len(numbers) <= most:
            return numbers
        places = crowding([self._scores[number] for number in numbers])
        return [numbers[place] for place in np.argsort(-places, kind="stable")[:most]]


def _dominates(one: Scores, other: Scores) -> bool:
    return one != other and all(mine >= theirs for mine, theirs in zip(one, other, strict=True))
