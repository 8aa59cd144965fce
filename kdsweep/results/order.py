"""The order of trials, from best to worst."""

from __future__ import annotations

import pandas as pd

from kdsweep.tasks import Goal


def ranked(trials: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Sort trials from best to worst, failed ones last; on a tie, the smaller student comes first."""
    order = ["failed", goal.column, "parameters", "number"]
    ascending = [True, goal.mode == "min", True, True]
    marked = trials.assign(failed=trials["state"] == "FAILED")
    return marked.sort_values(order, ascending=ascending).drop(columns="failed").reset_index(drop=True)


def by_confirmation(trials: pd.DataFrame, confirmed: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Order the confirmed trials among themselves by their mean on the validation split over the fresh seeds.

    The other trials keep their places: their values come from one seed, and the best of many such values are too high
    to be compared with means over fresh seeds. A trial that diverged on a fresh seed comes last among the confirmed.

    Args:
        trials: Trials from best to worst.
        confirmed: The frame of confirmed trials; may be empty.
        goal: The objective.
    """
    if confirmed.empty:
        return trials
    fresh = confirmed.set_index("trial")[goal.column].map(goal.score)
    places = trials.index[trials["trial"].isin(fresh.index)]
    scores = trials.loc[places, "trial"].map(fresh)
    order = trials.index.to_series()
    order[places] = scores.sort_values(ascending=False, kind="stable", na_position="last").index
    return trials.loc[order].reset_index(drop=True)


def distinct(trials: pd.DataFrame, top: int) -> pd.DataFrame:
    """The first trials, without later ones of the same configuration."""
    return trials.drop_duplicates("config").head(top).reset_index(drop=True)
