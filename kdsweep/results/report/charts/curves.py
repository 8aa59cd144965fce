"""Tuning curves and learning curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from kdsweep.params import named as part_name
from kdsweep.results.report.charts.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    VERMILION,
    Chart,
    hover_format,
    method_style,
    named,
    new_figure,
    nothing,
    numbers,
    text,
    tinted,
    value_format,
    words,
)
from kdsweep.results.report.found import Found, measured_trials, methods_of
from kdsweep.results.sizes import columns_of
from kdsweep.results.tuning import POOLED
from kdsweep.search.baseline import PLAIN
from kdsweep.tasks.metrics import shown
from kdsweep.words import count_of

LEAST_TRIALS = 3  # random trials of a method; with fewer, its curve says nothing
MOST_TRIALS = 32  # length of the tuning curves
_DASHES = ("solid", "dash", "dashdot", "longdash", "dot")
# State -> colour, dash and name in the legend.
STATES = {
    "PRUNED": (ORANGE, "dot", "stopped early"),
    "COMPLETE": (BLUE, "solid", "complete"),
    "RUNNING": (GREEN, "dash", "running"),
    "FAILED": (VERMILION, "dashdot", "failed"),
}
# Above this number of trials only the best half of them and an even choice of the others are drawn.
MOST_CURVES = 1000


def tuning(
    found: Found, n: int = MOST_TRIALS, width: float | None = None, student: str = "", budget_epochs: int = 0
) -> Chart:
    """Expected best result after up to n random trials of each method, with 95 % bands.

    Where a method has too few random trials for a curve of its own, all methods together have one.

    Args:
        found: The results.
        n: Length of the curves.
        width: Only trials of this width; None uses all.
        student: Only trials of this student; empty uses all.
        budget_epochs: Only trials of this budget; 0 uses all.
    """
    whose = ", ".join([*filter(None, [student]), *([count_of(budget_epochs, "epoch")] if budget_epochs else [])])
    whose = f"{text(whose)}: " if whose else ""
    most = min(n, max(2, found.spec.search.trials))
    curves = found.tuning_curves(most, width, student=student, budget_epochs=budget_epochs)
    methods, counts = methods_of(found), dict(zip(curves["method"], curves["trials"], strict=True))
    few = [name for name in methods if counts.get(name, 0) < LEAST_TRIALS]
    if [name for name in few if name != PLAIN]:
        pooled = found.tuning_curves(most, width, pooled=True, student=student, budget_epochs=budget_epochs)
        curves = pd.concat([curves, pooled[pooled["method"] == POOLED]], ignore_index=True)
        methods = [*(name for name in methods if name != PLAIN), POOLED, PLAIN]
    # More trials than were drawn at random would be a guess.
    curves = curves[(curves["trials"] >= LEAST_TRIALS) & (curves["n"] <= curves["trials"])]
    if curves.empty:
        return nothing(f"{whose}No method has {LEAST_TRIALS} trials drawn at random, so there are no tuning curves.")
    goal, figure, told = found.goal, new_figure(), []
    styles = method_style(methods)
    for place, method in enumerate(name for name in methods if (curves["method"] == name).any()):
        rows = curves[curves["method"] == method].sort_values("n")
        colour, dash = styles[method][0], "dot" if method == PLAIN else _DASHES[place % len(_DASHES)]
        _add_band(figure, rows, method, colour)
        count = int(rows["trials"].iloc[0])
        figure.add_trace(go.Scatter(
            x=rows["n"].tolist(), y=numbers(rows["expected_best"]), mode="lines", name=text(named(method)),
            legendgroup=text(method), line={"color": colour, "width": 2.5, "dash": dash},
            hovertemplate=f"{text(named(method))}, %{{x}} trials: %{{y:{hover_format(goal.name)}}}<extra></extra>",
        ))  # fmt: skip
        of = count_of(count, "random trial")
        told.append(f"{named(method)} {_ends(rows.iloc[-1], goal.column)} after {len(rows)} of {of}")
    figure.update_xaxes(title={"text": "number of random trials"}, type="linear", rangemode="tozero")
    figure.update_yaxes(title={"text": f"expected best {words(goal.column)}"}, tickformat=value_format(goal.name))
    _limit(figure, curves)
    alone = (
        "" if any((curves["method"] == name).any() for name in methods if name != PLAIN) else "Of plain students only. "
    )
    return Chart(figure, f"{whose}{alone}Expected best: {'; '.join(told)}.{_missing(found, few, counts)}")


def tunings(found: Found) -> dict[str, Chart]:
    """The tuning curves by name: one chart, or one for each student and budget that the sweep searches.

    Students and budgets differ in what they can reach, so the best of n trials over all of them would say more about
    how often each was drawn than about the methods.
    """
    columns = [name for name in columns_of(found.trials) if name != "width"]
    if not columns or found.trials.empty:
        return {"tuning": tuning(found)}
    groups = found.trials[columns].drop_duplicates().sort_values(columns).to_dict("records")
    return {
        f"tuning-{place}": tuning(
            found, student=str(group.get("student", "")), budget_epochs=int(group.get("budget_epochs", 0))
        )
        for place, group in enumerate(groups)
    }


def _missing(found: Found, few: list[str], counts: dict[str, int]) -> str:
    """Why some methods have no curve of their own, and what would give them one."""
    if not few:
        return ""
    told = ", ".join(f"{named(name)} {counts.get(name, 0)}" for name in few)
    more = "; a larger search.startup_trials draws more" if part_name(found.spec.search.sampler)[0] == "tpe" else ""
    return (
        f" A curve needs {LEAST_TRIALS} trials that were drawn at random, which leaves out given points and what the "
        f"sampler chose by earlier results{more}. Too few: {told}."
    )


def _add_band(figure: go.Figure, rows: pd.DataFrame, method: str, colour: str) -> None:
    if rows["low"].isna().any():
        return
    there, back = rows["n"].tolist(), rows["n"].tolist()[::-1]
    figure.add_trace(go.Scatter(
        x=there + back, y=numbers(rows["low"]) + numbers(rows["high"][::-1]), fill="toself", mode="lines",
        line={"width": 0}, fillcolor=tinted(colour, 0.13), legendgroup=text(method), showlegend=False,
        hoverinfo="skip", name=text(named(method)),
    ))  # fmt: skip


def _limit(figure: go.Figure, curves: pd.DataFrame) -> None:
    """Show the curves, and not all of a band that starts at zero."""
    low, high = float(curves["expected_best"].min()), float(curves["expected_best"].max())
    room = max(high - low, 1e-3)
    if curves["high"].notna().any():
        figure.update_yaxes(range=[low - 1.2 * room, min(float(curves["high"].max()), high + 1.2 * room) + 0.05 * room])


def _ends(row: pd.Series, column: str) -> str:
    band = "" if pd.isna(row["low"]) else f" (95 % band {shown(column, row['low'])} to {shown(column, row['high'])})"
    return f"{shown(column, float(row['expected_best']))}{band}"


def learning(found: Found) -> Chart:
    """The objective by epoch of every trial, by state, with the rungs at which trials were compared."""
    goal, trials = found.goal, found.trials
    values = found.epochs
    values = values[values[goal.column].notna()].sort_values(["trial", "epoch"], kind="stable")
    if values.empty:
        return nothing("No trial has finished an epoch.")
    chosen, left_out = _chosen(found)
    figure, counts = new_figure(), []
    for state, (colour, dash, name) in STATES.items():
        keys = trials.loc[trials["state"] == state, "trial"]
        rows = values[values["trial"].isin(set(keys) & chosen)]
        counts += [f"{len(keys)} {name}"] if len(keys) else []
        if not rows.empty:
            x, y = _broken(rows, goal.column)
            figure.add_trace(go.Scatter(
                x=x, y=y, mode="lines", name=name, line={"color": colour, "width": 1, "dash": dash}, connectgaps=False,
                opacity=max(0.25, min(0.9, 30 / len(keys))), hoverinfo="skip",
            ))  # fmt: skip
    best = measured_trials(found).head(1)
    told = f"{count_of(len(trials), 'trial')}: {', '.join(counts)}."
    if not best.empty:
        key = str(best["trial"].iloc[0])
        rows = values[values["trial"] == key]
        figure.add_trace(go.Scatter(
            x=rows["epoch"].tolist(), y=numbers(rows[goal.column]), mode="lines+markers", name="best student",
            line={"color": INK, "width": 2.5}, marker={"color": INK, "size": 6},
            hovertemplate=f"{text(key)}, epoch %{{x}}: %{{y:{hover_format(goal.name)}}}<extra></extra>",
        ))  # fmt: skip
        told += (
            f" The best student, {key}, goes from {shown(goal.column, float(rows[goal.column].iloc[0]))} after epoch "
            f"{int(rows['epoch'].iloc[0])} to {shown(goal.column, float(best[goal.column].iloc[0]))}."
        )
    rungs = [int(name.removeprefix("rung.")) for name in trials.columns if name.startswith("rung.")]
    for rung in rungs:
        figure.add_vline(x=rung, line={"color": GREY, "width": 1, "dash": "dash"})
        figure.add_annotation(
            x=rung, y=0, yref="paper", text=f"rung {rung}", showarrow=False, textangle=-90, xanchor="right",
            yanchor="bottom", font={"size": 11, "color": GREY},
        )  # fmt: skip
    if rungs:
        told += f" Trials are compared after epochs {', '.join(map(str, rungs))}."
    figure.update_xaxes(title={"text": "epoch"}, rangemode="tozero")
    figure.update_yaxes(title={"text": words(goal.column)}, tickformat=value_format(goal.name))
    return Chart(figure, told + (f" {count_of(left_out, 'trial')} not drawn." if left_out else ""))


def _chosen(found: Found) -> tuple[set[str], int]:
    """The trials to draw, and how many are left out."""
    keys = [*measured_trials(found)["trial"], *found.trials.loc[found.trials["state"] == "FAILED", "trial"]]
    if len(keys) <= MOST_CURVES:
        return set(keys), 0
    best, others = keys[: MOST_CURVES // 2], keys[MOST_CURVES // 2 :]
    step = -(-len(others) // (MOST_CURVES // 2))
    chosen = {*best, *others[::step]}
    return chosen, len(keys) - len(chosen)


def _broken(rows: pd.DataFrame, column: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All curves as one, with a gap (NaN) between trials."""
    starts = np.flatnonzero(rows["trial"].to_numpy()[1:] != rows["trial"].to_numpy()[:-1]) + 1
    x, y = (rows[name].to_numpy(dtype=np.float32) for name in ("epoch", column))
    return np.insert(x, starts, np.nan), np.insert(y, starts, np.nan)
