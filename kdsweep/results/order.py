"""The order of trials: by the search, by confirmation, and which ones are confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from kdsweep.results import several
from kdsweep.results.sizes import BUDGET, as_columns
from kdsweep.search.baseline import COMPARED
from kdsweep.tasks import Goal
from kdsweep.words import count_of

if TYPE_CHECKING:
    from kdsweep.config.spec import SweepSpec


def ranked(trials: pd.DataFrame, goal: Goal, *further: Goal) -> pd.DataFrame:
    """Sort trials from best to worst, failed ones last; on a tie, the smaller student comes first.

    With further objectives, the trials of the front come first, and those of one rank are ordered by the first one.
    """
    if further:
        return several.ranked(trials, (goal, *further))
    order = ["failed", goal.column, "parameters", "number"]
    ascending = [True, goal.mode == "min", True, True]
    marked = trials.assign(failed=trials["state"] == "FAILED")
    return marked.sort_values(order, ascending=ascending).drop(columns="failed").reset_index(drop=True)


def by_confirmation(
    trials: pd.DataFrame, confirmed: pd.DataFrame, goal: Goal, group_by: Sequence[str] = ()
) -> pd.DataFrame:
    """Order the confirmed trials among themselves by their mean on the validation split over the fresh seeds.

    The other trials keep their places: their values come from one seed, and the best of many such values are too high
    to be compared with means over fresh seeds. But a trial that the search found worse than a confirmed one of its
    group stays behind the best confirmed trial of that group, wherever that is now. A trial that diverged on a fresh
    seed comes last among the confirmed.

    Args:
        trials: Trials from best to worst.
        confirmed: The frame of confirmed trials; may be empty.
        goal: The objective.
        group_by: The settings by which trials are grouped, see `group_keys`.
    """
    trials = trials.reset_index(drop=True)
    if confirmed.empty or trials.empty:
        return trials
    fresh = confirmed.set_index("trial")[goal.column].map(goal.score)
    own = trials.index[trials["trial"].isin(fresh.index)]
    scores = trials.loc[own, "trial"].map(fresh)
    order = scores.sort_values(ascending=False, kind="stable", na_position="last").index
    groups = groups_of(trials, group_by)
    place = trials.index.to_series()
    before = place[own].groupby(groups[own]).min()
    place[order] = list(own)
    leaders = place[own].groupby(groups[own]).min()
    follows = ~trials.index.isin(own) & (trials.index > groups.map(before).fillna(len(trials)))
    place[follows] = place[follows].clip(lower=groups.map(leaders)[follows].astype(int))
    keys = pd.DataFrame({"place": place, "other": ~trials.index.isin(own)})
    return trials.loc[keys.sort_values(["place", "other"], kind="stable").index].reset_index(drop=True)


def distinct(trials: pd.DataFrame) -> pd.DataFrame:
    """Drop trials that repeat the configuration of an earlier row."""
    return trials.drop_duplicates("config").reset_index(drop=True)


def in_turn(trials: pd.DataFrame, top: int, group_by: Sequence[str]) -> pd.DataFrame:
    """Choose trials from all groups in turn: the best of every group, then the second of every group, and so on.

    Args:
        trials: Trials from best to worst.
        top: Total number of trials.
        group_by: The settings by which trials are grouped, see `group_keys`.

    Returns:
        The chosen trials in the order of choice; the group with the best trial comes first.
    """
    rank = trials.groupby(groups_of(trials, group_by), sort=False).cumcount()
    return trials.loc[rank.sort_values(kind="stable").index].head(top).reset_index(drop=True)


def group_keys(spec: SweepSpec) -> tuple[str, ...]:
    """The settings of `scheduler.group_by` with finitely many values, as columns of the frames call them.

    A setting from a range would make nearly every trial a group of its own. Trials of different budgets are never in
    one group; `width` stands for student and width.
    """
    space = spec.search_space
    drawn = [space.parameters(method) for method in space.methods()]
    keys = [key for key in spec.scheduler.group_by if all(values[key].finite for values in drawn if key in values)]
    if "width" in keys and not space.finite_widths:
        keys.remove("width")
    sized = "width" in spec.scheduler.group_by
    searched = [name for name in COMPARED if name in space.shared and (sized or name == "epochs")]
    return tuple(as_columns(dict.fromkeys([*searched, *keys])))


def groups_of(trials: pd.DataFrame, group_by: Sequence[str]) -> pd.Series:
    """Name the group of each trial, such as `width 0.5`; empty without groups.

    Args:
        trials: Trials, or the frame of confirmed trials.
        group_by: The settings by which they are grouped.
    """
    keys = [key for key in group_by if key in trials.columns]
    names = [", ".join(map(_named, keys, values)) for values in zip(*(trials[key] for key in keys), strict=True)]
    return pd.Series(names if keys else "", index=trials.index, dtype=object)


def _named(key: str, value: Any) -> str:
    if pd.isna(value):
        return f"no {key}"
    if key == BUDGET:
        return count_of(float(value), "epoch")
    return f"{key} {value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else f"{key} {value}"
