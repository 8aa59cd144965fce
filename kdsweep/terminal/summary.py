"""The summary at the end of a sweep: the best students, their baselines, the teacher, and suggested next commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.text import Text

from kdsweep.errors import printable
from kdsweep.results import agreement, several
from kdsweep.results.confirmed import verdict_of
from kdsweep.results.effort import efforts
from kdsweep.results.frames import Results
from kdsweep.results.gains import LEVEL
from kdsweep.results.order import groups_of
from kdsweep.results.sizes import BUDGET, size_text
from kdsweep.results.taught import taught_lines
from kdsweep.search.baseline import PLAIN
from kdsweep.search.budget import Budget
from kdsweep.storage.places import shortest
from kdsweep.tasks.metrics import Goal, is_fraction
from kdsweep.terminal.students import student_table
from kdsweep.terminal.tables import console
from kdsweep.words import count_of

SHOWN = 5
SHOWN_FRONT = 10
REASONS = 3  # failures that are explained
_BASELINES = {"kd_gain": "its plain twin", "kd_gain_tuned": "the tuned plain student"}


def print_summary(results: Results) -> None:
    """Print the summary to standard output."""
    out = console()
    what = "the best students" if len(results.goals) == 1 else f"the Pareto front of {_named(results.goals)}"
    out.print(Text(f"{printable(results.spec.name)}: {what}", style="bold"))
    out.print()
    out.print(student_table(results, _shown(results), out.width))
    out.print()
    for line in _notes(results):
        # What is copied, paths and commands, is left to the terminal to wrap.
        copied = shortest(results.sweep.place) in line
        out.print(printable(line), highlight=False, markup=False, soft_wrap=copied)


def _shown(results: Results) -> pd.DataFrame:
    """The best students and every confirmed one; with several objectives, a part of the front instead of the best."""
    every = results.distinct(len(results.trials))
    best = every.head(SHOWN) if len(results.goals) == 1 else several.spread_along(results.pareto(), SHOWN_FRONT)
    confirmed = results.confirmed
    wanted = every["trial"].isin(confirmed["trial"]) if not confirmed.empty else False
    return every[every["config"].isin(best["config"]) | wanted]


def _winners(results: Results) -> pd.DataFrame:
    """The best confirmed trial of each group, with the name of its group."""
    confirmed = results.confirmed
    places = {key: place for place, key in enumerate(results.best(len(results.trials))["trial"])}
    ordered = confirmed.assign(group=groups_of(confirmed, results.group_by), place=confirmed["trial"].map(places))
    return ordered.sort_values("place").drop_duplicates("group")


def _named(goals: Sequence[Goal]) -> str:
    return " and ".join(goal.column.replace("_", " ") for goal in goals)


def _notes(results: Results) -> list[str]:
    path = shortest(results.sweep.place)
    states = ", ".join(f"{count} {state}" for state, count in results.trials["state"].value_counts().items())
    notes = [
        f"{count_of(len(results.trials), 'trial')} ({states}) in {path}",
        *_failures(results.trials),
        *_budget(results),
    ]
    notes += _fronts(results)
    if not results.confirmed.empty:
        notes += _agreements(results) if results.spec.label_free else [_confirmation(results)]
        winners = []
        if len(results.goals) == 1:
            winners = [(row.group, row.trial) for row in _winners(results).itertuples() if row.group]
        if winners:
            notes.append(f"Best confirmed student by group: {'; '.join(f'{group}: {key}' for group, key in winners)}.")
    if not results.confirmed.empty and not results.spec.label_free:
        norms = ", ".join(f"{row.trial} {row.first_layer_norm:.4f}" for row in results.confirmed.itertuples())
        notes += taught_lines(results, results.taught)
        notes += efforts(results.effort(), results.confirmed)
        notes.append(f"Norm of the first layer before training (equal for a plain twin of the same seed): {norms}.")
        notes += _warnings(results)
    more = 2 * len(results.trials)
    commands = (
        f"results {path} --top 10", f"export {path} --out students --top 3", f"resume {path} --trials {more}"
    )  # fmt: skip
    return [*notes, "", "Next:", *(f"  kdsweep {command}" for command in commands)]


def _agreements(results: Results) -> list[str]:
    """Say how well confirmed students agree with the teacher, where no image has a label."""
    rows = results.confirmed.to_dict("records")
    return [f"Confirmed: {row['trial']}: {agreement.told(row, results.goal, results.teacher)}." for row in rows] + [
        f"{agreement.NO_GAIN}."
    ]


def _confirmation(results: Results) -> str:
    """Explain the columns of confirmed students."""
    confirmed, goal = results.confirmed, results.goal
    points = "in percentage points, " if is_fraction(goal.name) else ""
    judged = confirmed["judged_seeds"].where(confirmed["judged_seeds"] > 0, confirmed["seeds"])
    most = int(judged.max())
    several = most > 1
    seeds = _range(int(judged.min()), most) + (" fresh seeds" if several else " fresh seed")
    measured = "mean ± standard deviation on the test split" if several else "value on the test split"
    level = confirmed["level"].fillna(LEVEL)
    interval = ", with a confidence interval of their mean" if several else ""
    if several and level.eq(LEVEL).all():
        interval = f", with the {100 * (1 - LEVEL):.4g} % confidence interval of their mean"
    elif several:
        interval += " that allows for the repeated looks"
    ordered = "mean " if int(confirmed["seeds"].max()) > 1 else ""
    return (
        f"Confirmed on {seeds}: {measured}. Gains are {points}paired by seed{interval} and a verdict; a negative gain "
        "is a loss. The plain twin has the same settings without distillation; the tuned plain student has the "
        "settings of the best plain trial of the same width that was trained to the end. Confirmed students are "
        f"ordered by their {ordered}{goal.column.replace('_', ' ')} on "
        f"{_range(int(confirmed['seeds'].min()), int(confirmed['seeds'].max()))} fresh seeds."
    )


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _fronts(results: Results) -> list[str]:
    """Say how large the front of several objectives is."""
    if len(results.goals) == 1:
        return []
    members, volume = len(results.pareto()), results.hypervolume()
    front = f"{count_of(members, 'trial')} on the front"
    return [f"{front}; its hypervolume from the worst value of each objective is {volume:.4g}."]


def _failures(trials: pd.DataFrame) -> list[str]:
    """Explain why trials failed, the most frequent reasons first."""
    failed = trials[trials["state"] == "FAILED"]
    lines = []
    for reason, keys in sorted(failed.groupby("error")["trial"], key=lambda group: -len(group[1])):
        which = f"Trial {keys.iloc[0]}" if len(keys) == 1 else f"{len(keys)} trials ({keys.iloc[0]}, ...)"
        lines.append(printable(f"{which} failed: {' '.join(str(reason).split()) or 'no reason was recorded'}"))
    more = [f"and {len(lines) - REASONS} more reasons, see: kdsweep results --sort state"]
    return lines[:REASONS] + (more if len(lines) > REASONS else [])


def _budget(results: Results) -> list[str]:
    """Say that the budget ended the search, and which widths therefore have no tuned plain student."""
    budget = Budget.logged(results.spec.search, results.sweep)
    if not budget.spent or len(results.trials[results.trials["state"] != "RUNNING"]) >= results.spec.search.trials:
        return []
    paused = int((results.trials["state"] == "RUNNING").sum())
    lines = [
        f"The budget is spent: {budget.limits()}; {count_of(paused, 'unfinished trial')} paused, and confirmed if good."
    ]
    space = results.spec.search_space
    if PLAIN in space.methods() and len(space.methods()) > 1 and space.finite_widths:
        missing = [size_text(size) for size in _sizes(results) if results.plain(like=size).empty]
        without = ", ".join([missing[0], *(one.removeprefix("width ") for one in missing[1:])]) if missing else ""
        if without:
            lines.append(f"No plain trial was trained to the end at {without}: no tuned plain student there.")
    return lines


def _sizes(results: Results) -> list[dict[str, Any]]:
    """Every size that the space can draw, as the columns of the frames name it."""
    space = results.spec.search_space
    return [
        {**({"student": label} if label else {}), "width": float(width)}
        | ({BUDGET: budget} if "epochs" in space.shared else {})
        for label, widths in space.widths().items()
        for width in widths.every()
        for budget in results.spec.budgets
    ]


def _warnings(results: Results) -> list[str]:
    """Warn about gains that are not established, and explain missing baselines and verdicts."""
    confirmed = results.confirmed[results.confirmed["method"] != PLAIN]
    name, lines = results.goal.name, []
    if (confirmed["judged_seeds"] == 1).any():
        lines.append("Warning: one seed shows no spread, so it gives no verdict; confirm at least 5 seeds.")
    for row in confirmed.to_dict("records"):
        verdicts = {baseline: verdict_of(row, gain) for gain, baseline in _BASELINES.items()}
        doubts = [
            f"over {baseline}: {verdict.conclusion(name)}"
            for baseline, verdict in verdicts.items()
            if verdict is not None and verdict.seeds != 1 and (verdict.verdict != "gain" or verdict.failed)
        ]
        if doubts:
            lines.append(f"Warning: {row['trial']}: {'; '.join(doubts)}.")
    judged = confirmed[confirmed["judged_seeds"] > 0]
    if judged["kd_gain_tuned"].isna().any():
        lines.append("Some rows have no tuned plain student: no plain trial of that width was trained to the end.")
    if len(judged) < len(confirmed):
        lines.append(
            "Students without gains were candidates only: the best of each group is judged (confirm.seeds: auto)."
        )
    if not judged.empty and judged["verdict"].eq("").any():
        lines.append("The gains have no verdicts because version 0.1.0 confirmed them; kdsweep confirm adds them.")
    return lines
