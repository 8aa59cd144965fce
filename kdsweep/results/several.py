"""Results of a sweep with several objectives: order, Pareto front and hypervolume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdsweep.errors import InputError, did_you_mean
from kdsweep.search import pareto
from kdsweep.tasks import Goal


def scores(trials: pd.DataFrame, goals: Sequence[Goal]) -> NDArray[np.float64]:
    """Scores of the trials: [N, K], higher is better."""
    columns = [goal.score(1.0) * trials[goal.column].to_numpy(dtype=float) for goal in goals]
    return np.stack(columns, axis=1)


def measured(trials: pd.DataFrame, goals: Sequence[Goal]) -> pd.DataFrame:
    """The trials that have a value of every objective and did not fail."""
    columns = [goal.column for goal in goals]
    return trials[trials[columns].notna().all(axis=1) & (trials["state"] != "FAILED")]


def ranked(trials: pd.DataFrame, goals: Sequence[Goal]) -> pd.DataFrame:
    """Sort trials by rank, then by the first objective; on a tie, the smaller student comes first.

    Trials without a result come last, failed ones after the others.
    """
    known = measured(trials, goals)
    ties = [known["parameters"].to_numpy(dtype=float), known["number"].to_numpy(dtype=float)]
    first = known.iloc[pareto.order(scores(known, goals), ties)]
    rest = trials.drop(known.index)
    rest = rest.assign(failed=rest["state"] == "FAILED").sort_values(["failed", "number"]).drop(columns="failed")
    return (pd.concat([first, rest]) if len(rest) else first).reset_index(drop=True)


def front(trials: pd.DataFrame, goals: Sequence[Goal]) -> pd.DataFrame:
    """The trials that no other dominates, from the best to the worst by the first objective; one of equal trials."""
    known = measured(trials, goals)
    return known.iloc[pareto.front(scores(known, goals))].reset_index(drop=True)


def hypervolume(trials: pd.DataFrame, goals: Sequence[Goal], reference: Mapping[str, float]) -> float:
    """Hypervolume of the front, see `Results.hypervolume`.

    Raises:
        InputError: If the sweep has one objective, or the reference names something else than an objective.
    """
    columns = [goal.column for goal in goals]
    if len(goals) < 2:
        raise InputError(f"hypervolume: the sweep has one objective, {columns[0]}; accepted: a sweep with several")
    for name in reference:
        if name not in columns:
            raise InputError(f"hypervolume: unknown objective {name!r}; {did_you_mean(name, columns)}")
    known = measured(trials, goals)
    if known.empty:
        return 0.0
    found = scores(known, goals)
    worst = [
        goal.score(float(reference[goal.column])) if goal.column in reference else float(column.min())
        for goal, column in zip(goals, found.T, strict=True)
    ]
    return pareto.hypervolume(found[pareto.front(found)], worst)


def spread_along(front: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` trials of a front without repeated configurations, evenly spaced from end to end."""
    distinct = front.drop_duplicates("config")
    return distinct.iloc[pareto.spread_out(len(distinct), most)].reset_index(drop=True)
