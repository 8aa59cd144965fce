"""Compares the sweeps of a storage directory on one page: best student per method, size and progress on shared axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from kdsweep.errors import KdsweepError
from kdsweep.results.report import answer
from kdsweep.results.report.charts.size import front_of
from kdsweep.results.report.charts.style import (
    COLOURS,
    MARKERS,
    Chart,
    hover_format,
    log_ticks,
    named,
    new_figure,
    nothing,
    numbers,
    text,
    value_format,
    words,
)
from kdsweep.results.report.found import Found, complete_trials, measured_trials, methods_of, settings_text
from kdsweep.results.report.page import assembled
from kdsweep.results.report.places import shortest
from kdsweep.search.baseline import PLAIN
from kdsweep.tasks import Goal
from kdsweep.tasks.metrics import shown
from kdsweep.words import count_of

TEACHER = "teacher"


@dataclass
class Entry:
    """What the comparison shows of one sweep.

    Attributes:
        name: Name of the sweep.
        link: Address of its own page, relative to this one.
        running: Whether it is still running.
        state: running, finished, stopped (with trials left) or ended (perhaps because its budget was spent); empty if
            it cannot be read.
        problem: Why it cannot be read; the other values are then empty.
        goal: The objective.
        trials: Trials that have ended, and all trials, in words.
        best: The best trial, as a row of the frame; empty before the first epoch.
        confirmed: Test value and gain of the best trial, in words.
        verdict: The verdict on that gain; empty if there is none.
        by_method: The best value of each method, plain students last, then that of the teacher.
        front: The Pareto front of complete trials: parameters, value.
        progress: Best value so far after so many epochs of all trials: epochs, value. One row per improvement.
        teacher_parameters: Parameters of the teacher; 0 if it is not known.
    """

    name: str
    link: str
    running: bool
    state: str = ""
    problem: str = ""
    goal: Goal = field(default_factory=Goal)
    trials: str = ""
    best: dict[str, Any] = field(default_factory=dict)
    confirmed: str = ""
    verdict: str = ""
    by_method: dict[str, float] = field(default_factory=dict)
    front: pd.DataFrame = field(default_factory=pd.DataFrame)
    progress: pd.DataFrame = field(default_factory=pd.DataFrame)
    teacher_parameters: int = 0


def summary_of(found: Found, link: str, running: bool) -> Entry:
    """Read what the comparison shows of a sweep."""
    entry = Entry(found.path.name, link, running)
    try:
        _fill(entry, found)
    except (KdsweepError, OSError, ValueError, KeyError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        return Entry(found.path.name, link, running, problem=problem)
    return entry


def _fill(entry: Entry, found: Found) -> None:
    goal = entry.goal = found.goal
    ended = int(found.trials["state"].isin(answer.ENDED).sum())
    entry.trials = f"{ended} of {found.spec.search.trials}"
    entry.state = "running" if entry.running else _over(found, ended)
    best = measured_trials(found)
    if len(best):
        entry.best = {str(name): value for name, value in best.iloc[0].items()}
        judged = answer.confirmed_row(found, entry.best["trial"])
        if judged:
            entry.confirmed = answer.gain_of(judged, goal.name)
            entry.verdict = answer.verdict_word(judged)
    # By the search alone: every method's best value is from one seed.
    scores = best.assign(score=best[goal.column].map(goal.score))
    tops = scores.groupby("method")["score"].max() if len(best) else {}
    entry.by_method = {name: goal.score(float(tops[name])) for name in methods_of(found) if name in tops}
    if goal.column in found.teacher:
        entry.by_method[TEACHER] = float(found.teacher[goal.column])
        entry.teacher_parameters = int(found.teacher["parameters"])
    complete = complete_trials(found)
    front = front_of(complete[complete["parameters"].notna()], "parameters", goal)
    entry.front = pd.DataFrame({"parameters": front["parameters"].astype(float), "value": front[goal.column]})
    entry.progress = _progress(found.epochs, goal)


def _over(found: Found, ended: int) -> str:
    search = found.spec.search
    if ended >= search.trials:
        return "finished"
    return "ended" if search.max_hours or search.max_epochs else "stopped"


def _progress(epochs: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """The best value so far, in the order in which the epochs were trained; only improvements and the last epoch."""
    if epochs.empty:
        return pd.DataFrame({"epochs": [], "value": []})
    best = epochs[goal.column].map(goal.score).cummax().ffill()
    kept = best.ne(best.shift()) & best.notna()
    kept.iloc[-1] = True
    return pd.DataFrame({"epochs": kept.index[kept] + 1, "value": best[kept].map(goal.score)})


def render_comparison(root: Path, entries: Sequence[Entry], live: str) -> str:
    """The page that compares sweeps, as HTML.

    Args:
        root: The storage directory.
        entries: The sweeps.
        live: Version of the page, see `page.render`.
    """
    goals = list(dict.fromkeys(entry.goal for entry in entries if entry.best))
    sections, figures = [], dict[str, Chart]()
    for place, goal in enumerate(goals):
        group = [entry for entry in entries if entry.best and entry.goal == goal]
        charts = {
            f"methods-{place}": by_method(group, goal),
            f"front-{place}": fronts(group, goal),
            f"progress-{place}": progress(group, goal),
        }
        figures |= charts
        sections.append((words(goal.column), charts))
    return assembled(
        "compare.html.j2",
        figures,
        live,
        root=shortest(root),
        running=sum(entry.running for entry in entries),
        rows=[_row(entry) for entry in entries],
        sections=sections,
        version=version("kdsweep"),
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _row(entry: Entry) -> dict[str, str]:
    row = {
        "name": entry.name,
        "link": entry.link,
        "state": entry.state,
        "trials": entry.trials,
        "objective": "",
        "best": "",
        "trial": "",
        "settings": entry.problem and f"cannot be read: {entry.problem}",
        "parameters": "",
        "confirmed": entry.confirmed,
        "verdict": entry.verdict,
        "teacher": "",
    }
    if entry.best:
        column = entry.goal.column
        row |= {
            "objective": words(column),
            "best": shown(column, float(entry.best[column])),
            "trial": str(entry.best["trial"]),
            "settings": f"{named(str(entry.best['method']))}, {settings_text(entry.best['config'])}",
            "parameters": f"{int(entry.best['parameters']):,}",
            "teacher": shown(column, entry.by_method.get(TEACHER, math.nan)),
        }
    return row


def by_method(entries: Sequence[Entry], goal: Goal) -> Chart:
    """The best value of each method and of the teacher, by sweep."""
    methods = list(dict.fromkeys(name for entry in entries for name in entry.by_method))
    methods.sort(key=lambda name: (name == TEACHER, name == PLAIN))
    figure = new_figure()
    for place, entry in enumerate(entries):
        known = [name for name in methods if name in entry.by_method]
        figure.add_trace(go.Scatter(
            x=[text(named(name)) for name in known], y=numbers(entry.by_method[name] for name in known), mode="markers",
            name=text(entry.name), marker=_marker(place) | {"size": 10},
            hovertemplate=f"{text(entry.name)}, %{{x}}<br>%{{y:{hover_format(goal.name)}}}<extra></extra>",
        ))  # fmt: skip
    order = [text(named(name)) for name in methods]
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=order)
    _value_axis(figure, goal)
    told = []
    for name in methods:
        if name != TEACHER:
            values = {entry.name: entry.by_method[name] for entry in entries if name in entry.by_method}
            best = max(values, key=lambda sweep: goal.score(values[sweep]))
            told.append(f"{named(name)}: {shown(goal.column, values[best])} in {best}")
    return Chart(figure, f"Best {words(goal.column)} of each method, one seed. {'; '.join(told)}.")


def fronts(entries: Sequence[Entry], goal: Goal) -> Chart:
    """The Pareto fronts of all sweeps, with their teachers."""
    figure, told = new_figure(), []
    for place, entry in enumerate(entries):
        if entry.front.empty:
            continue
        shape = "hv" if goal.mode == "max" else "vh"
        figure.add_trace(go.Scatter(
            x=numbers(entry.front["parameters"]), y=numbers(entry.front["value"]), mode="lines+markers",
            name=text(entry.name), marker=_marker(place), line={"shape": shape, "width": 1.5, "dash": "dot"},
            hovertemplate=f"{text(entry.name)}<br>%{{y:{hover_format(goal.name)}}}, %{{x:,}} parameters<extra></extra>",
        ))  # fmt: skip
        if entry.teacher_parameters:
            figure.add_trace(go.Scatter(
                x=[entry.teacher_parameters], y=numbers([entry.by_method[TEACHER]]), mode="markers", showlegend=False,
                marker={"symbol": "star", "size": 14, "color": _marker(place)["color"]},
                hovertemplate=f"teacher of {text(entry.name)}<br>%{{y:{hover_format(goal.name)}}}<extra></extra>",
            ))  # fmt: skip
        smallest = entry.front.iloc[0]
        told.append(
            f"{entry.name}: {count_of(len(entry.front), 'student')} from {int(smallest['parameters']):,} to "
            f"{int(entry.front.iloc[-1]['parameters']):,} parameters"
        )
    if not told:
        return nothing("No trial has reached the last epoch.")
    shown_at = [float(value) for trace in figure.data for value in trace.x]
    figure.update_xaxes(type="log", title={"text": "parameters"}, **log_ticks(shown_at))
    _value_axis(figure, goal)
    return Chart(figure, f"Pareto fronts of the complete trials; stars are teachers. {'; '.join(told)}.")


def progress(entries: Sequence[Entry], goal: Goal) -> Chart:
    """The best value so far by epochs trained."""
    figure, told = new_figure(), []
    for place, entry in enumerate(entries):
        if entry.progress.empty:
            continue
        figure.add_trace(go.Scatter(
            x=numbers(entry.progress["epochs"]), y=numbers(entry.progress["value"]), mode="lines",
            name=text(entry.name), line={"shape": "hv", "width": 2, "color": _marker(place)["color"]},
            hovertemplate=f"{text(entry.name)}<br>%{{y:{hover_format(goal.name)}}}, %{{x:,}} epochs<extra></extra>",
        ))  # fmt: skip
        last = entry.progress.iloc[-1]
        told.append(f"{entry.name}: {shown(goal.column, float(last['value']))} after {int(last['epochs']):,} epochs")
    if not told:
        return nothing("No trial has finished an epoch.")
    figure.update_xaxes(title={"text": "epochs trained, all trials"})
    _value_axis(figure, goal)
    return Chart(figure, f"Best {words(goal.column)} so far. {'; '.join(told)}.")


def _value_axis(figure: go.Figure, goal: Goal) -> None:
    figure.update_yaxes(title={"text": words(goal.column)}, tickformat=value_format(goal.name))


def _marker(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place % len(COLOURS)], "symbol": MARKERS[place % len(MARKERS)], "size": 8}
