"""Accuracy against what a student costs: parameters, size, latency, FLOPs."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from kdsweep.results import from_logs
from kdsweep.results.report.charts.style import (
    INK,
    Chart,
    hover_format,
    log_ticks,
    method_style,
    named,
    new_figure,
    nothing,
    numbers,
    text,
    value_format,
    words,
)
from kdsweep.results.report.found import Found, complete_trials, measured_trials, methods_of, settings_text
from kdsweep.results.speed import within_noise
from kdsweep.search.baseline import PLAIN
from kdsweep.tasks import Goal
from kdsweep.tasks.metrics import shown
from kdsweep.words import count_of

COSTS = {
    "parameters": "parameters",
    "latency_ms": "latency (ms)",
    "flops": "FLOPs",
}


def costs_of(found: Found) -> list[str]:
    """The cost columns that were measured."""
    return [name for name in COSTS if name in found.trials.columns and found.trials[name].notna().any()]


def pareto(found: Found, cost: str = "parameters") -> Chart:
    """The objective against a cost, with the teacher, plain students and the Pareto front.

    Args:
        found: The results.
        cost: A column of `trials`: parameters, size_mb, latency_ms, ...
    """
    trials, goal = complete_trials(found), found.goal
    if trials.empty:
        trials = measured_trials(found)
    if cost not in trials.columns:
        return nothing(f"No trial has {cost}.")
    trials = trials[trials[cost].notna()]
    if trials.empty:
        return nothing("No trial has finished an epoch.")
    name, styles = COSTS.get(cost, words(cost).replace(" mb", " (MiB)")), method_style(methods_of(found))
    figure = new_figure()
    front = front_of(trials, cost, goal)
    figure.add_trace(go.Scatter(
        x=numbers(front[cost]), y=numbers(front[goal.column]), mode="lines", name="Pareto front",
        line={"color": INK, "width": 1, "dash": "dot", "shape": "hv" if goal.mode == "max" else "vh"}, hoverinfo="skip",
    ))  # fmt: skip
    for method in methods_of(found):
        rows = trials[trials["method"] == method]
        if not rows.empty:
            figure.add_trace(_students(rows, method, cost, name, goal, styles[method]))
    teacher = found.teacher
    if cost in teacher and goal.column in teacher:
        figure.add_trace(go.Scatter(
            x=[teacher[cost]], y=[teacher[goal.column]], mode="markers", name="teacher",
            marker={"symbol": "star", "size": 15, "color": INK},
            hovertemplate=f"teacher<br>%{{y:{hover_format(goal.name)}}}<br>%{{x:,}} {name}<extra></extra>",
        ))  # fmt: skip
    ends = [*trials[cost].astype(float), *([float(teacher[cost])] if teacher.get(cost) else [])]
    figure.update_xaxes(type="log", title={"text": name}, **log_ticks(ends))
    figure.update_yaxes(title={"text": words(goal.column)}, tickformat=value_format(goal.name))
    return Chart(figure, _told(front, trials, teacher, cost, name, goal) + _measured(found, trials, cost))


def _measured(found: Found, trials: pd.DataFrame, cost: str) -> str:
    """How the latency was measured; empty for other costs."""
    where = from_logs.costs_of(found.sweep)
    if cost != "latency_ms" or "threads" not in where:
        return ""
    threads, spread = where["threads"], float(trials["latency_iqr_ms"].max())
    told = f" Median times on {where['device']} with {count_of(threads, 'thread')}"
    if not spread > 0:
        return f"{told}."
    distinct = trials.drop_duplicates(["latency_ms", "latency_iqr_ms"])
    distinct = distinct[distinct["latency_ms"].notna()].to_dict("records")
    fastest = min(distinct, key=lambda row: float(row["latency_ms"]))
    alike = sum(within_noise(row, fastest) for row in distinct)
    noise = ""
    if alike > 1:
        noise = f" {alike} of {len(distinct)} different students are as fast as the fastest within these ranges: noise."
    return f"{told}; bars are interquartile ranges, at most {spread:.3g} ms.{noise}"


def front_of(trials: pd.DataFrame, cost: str, goal: Goal) -> pd.DataFrame:
    """The trials that no other of the same or lower cost beats, by rising cost."""
    scores = trials.assign(score=trials[goal.column].map(goal.score))
    rising = scores.sort_values([cost, "score"], ascending=[True, False], kind="stable")
    return rising[rising["score"] > rising["score"].cummax().shift(fill_value=-math.inf)]


def _students(rows: pd.DataFrame, method: str, cost: str, name: str, goal: Goal, style: tuple[str, str]) -> go.Scatter:
    colour, marker = style
    hover = [
        f"{text(key)}<br>{text(named(method))}, {text(settings_text(config))}"
        for key, config in zip(rows["trial"], rows["config"], strict=True)
    ]
    return go.Scatter(
        x=numbers(rows[cost]), y=numbers(rows[goal.column]), mode="markers", name=text(named(method)), text=hover,
        error_x=_spread(rows, cost, colour),
        marker={"color": colour, "symbol": marker, "size": 9 if method != PLAIN else 8, "opacity": 0.8,
                "line": {"width": 2 if method == PLAIN else 0}},
        hovertemplate=f"%{{text}}<br>%{{y:{hover_format(goal.name)}}}, %{{x:,.4~g}} {name}<extra></extra>",
    )  # fmt: skip


def _spread(rows: pd.DataFrame, cost: str, colour: str) -> dict[str, object] | None:
    """Half the interquartile range of a latency to either side; None for costs without a spread."""
    if cost != "latency_ms" or "latency_iqr_ms" not in rows or rows["latency_iqr_ms"].isna().all():
        return None
    half = numbers(rows["latency_iqr_ms"].fillna(0) / 2)
    return {"type": "data", "array": half, "thickness": 1, "width": 3, "color": colour}


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _told(
    front: pd.DataFrame, trials: pd.DataFrame, teacher: dict[str, float], cost: str, name: str, goal: Goal
) -> str:
    def at(row: pd.Series) -> str:
        return f"{shown(goal.column, float(row[goal.column]))} at {_amount(row[cost])} {name}"

    smallest, best = front.iloc[0], front.iloc[-1]
    if len(front) == 1:
        parts = [f"One student is the Pareto front: {at(best)}"]
    else:
        parts = [f"The Pareto front has {count_of(len(front), 'student')}, from {at(smallest)} to {at(best)}"]
    plain = trials[trials["method"] == PLAIN]
    if not plain.empty:
        parts.append(f"The best plain student reaches {at(plain.iloc[0])}")
    if cost in teacher and goal.column in teacher:
        parts.append(
            f"The teacher reaches {shown(goal.column, float(teacher[goal.column]))} at {_amount(teacher[cost])} {name}"
        )
    return ". ".join(parts) + "."
