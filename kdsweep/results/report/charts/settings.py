"""Settings and their effect: parallel coordinates, response to one setting, importance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go

from kdsweep.results.report.charts.style import (
    BLUE,
    GREY,
    INK,
    SKY,
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
from kdsweep.results.sizes import columns_of
from kdsweep.search.baseline import PLAIN
from kdsweep.tasks.metrics import is_fraction, shown
from kdsweep.words import count_of

UNUSED = -0.12  # height at which trials pass an axis whose setting they do not use
MOST_LINES = 2000
MOST_AXES = 10
# Groups of trials: name, start as a share of all, colour, width and opacity of their lines.
_SHARES = (
    ("the best 10 %", 0, BLUE, 1.8, 0.9),
    ("the next 40 %", 0.1, SKY, 1.1, 0.55),
    ("the rest", 0.5, GREY, 1, 0.3),
)
_GAP = 0.08  # smallest distance between two ticks
_WIDE = 5  # a ratio of largest to smallest value above which an axis is logarithmic


@dataclass
class Axis:
    """One axis of the parallel coordinates.

    Attributes:
        name: The column.
        heights: Height of every trial on the axis, 0 to 1; `UNUSED` where the trial does not use the setting.
        ticks: Height and label of each tick.
    """

    name: str
    heights: list[float]
    ticks: list[tuple[float, str]]


def parallel(found: Found) -> Chart:
    """Parallel coordinates: one line per trial, one axis per searched setting, and the objective.

    The `meta` of the last trace holds the height of every trial on every axis, that of the others the trials that are
    their lines.
    """
    trials, goal = measured_trials(found), found.goal
    left_out = max(0, len(trials) - MOST_LINES)
    trials = trials.head(MOST_LINES).reset_index(drop=True)
    axes = [axis for name in _settings(trials) if (axis := _axis(trials, name)) is not None][:MOST_AXES]
    if trials.empty or not axes:
        return nothing("No trial has finished an epoch." if trials.empty else "All trials have the same settings.")
    axes.append(_numeric(trials, goal.column, log=False))
    figure = new_figure(height=480, dragmode="select")
    keys, end = trials["trial"].tolist(), len(trials)
    for name, start, colour, width, opacity in reversed(_SHARES):  # the best on top
        first = math.ceil(start * len(trials))
        if end > first:
            figure.add_trace(_lines(axes, keys, range(first, end), name, colour, width, opacity))
        end = min(end, first)
    # Only the ends of the axes are points, because a point per trial and axis would make the page slow.
    figure.add_trace(go.Scatter(
        x=[place for place in range(len(axes)) for _ in (0, 1)], y=[0, 1] * len(axes), mode="markers", showlegend=False,
        marker={"color": INK, "size": 4}, hoverinfo="skip",
        meta={"trials": keys, "axes": [{"name": text(axis.name), "heights": axis.heights} for axis in axes]},
    ))  # fmt: skip
    figure.update_layout(annotations=[note for place, axis in enumerate(axes) for note in _ticks(place, axis)])
    names = [text(words(axis.name)) for axis in axes]
    figure.update_xaxes(
        tickvals=list(range(len(axes))), ticktext=names, side="top", range=[-0.35, len(axes) - 0.35], gridcolor=GREY,
        fixedrange=True,
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[-0.2, 1.06], fixedrange=True)
    figure.update_layout(legend={"y": -0.02, "yanchor": "top", "traceorder": "reversed"})
    note = f" The {left_out} worst trials are not drawn." if left_out else ""
    return Chart(figure, f"{_ranges(trials, axes)}{note}")


def _settings(trials: pd.DataFrame) -> list[str]:
    """The searched settings that differ between trials."""
    leading = ["method", *columns_of(trials), "temperature", "alpha", "lr"]
    end = list(trials.columns).index("epochs")
    own = [name for name in trials.columns[:end] if name not in (*leading, "trial", "number", "state")]
    own = [name for name in own if not name.startswith("rung.")]
    return [name for name in (*leading, *own) if trials[name].nunique(dropna=False) > 1]


def _axis(trials: pd.DataFrame, name: str) -> Axis | None:
    values = trials[name]
    if values.notna().sum() == 0:
        return None
    number = pd.to_numeric(values, errors="coerce")
    if number.notna().sum() < values.notna().sum() or pd.api.types.is_bool_dtype(values):
        return _categories(values, name)
    used = number.dropna()
    return _numeric(trials, name, log=used.min() > 0 and used.max() / used.min() > _WIDE)


def _categories(values: pd.Series, name: str) -> Axis:
    kinds = sorted(values.dropna().astype(str).unique(), key=lambda kind: (kind == PLAIN, kind), reverse=True)
    place = {kind: number / max(1, len(kinds) - 1) for number, kind in enumerate(kinds)}
    heights = [place[str(value)] if value == value and value is not None else UNUSED for value in values]
    return Axis(name, [round(height, 4) for height in heights], [(place[kind], named(kind)) for kind in kinds])


def _numeric(trials: pd.DataFrame, name: str, log: bool) -> Axis:
    values = pd.to_numeric(trials[name], errors="coerce")
    scaled = values.map(math.log) if log else values
    low, high = scaled.min(), scaled.max()
    length = high - low if high > low else 1
    heights = (scaled - low) / length
    ticks = sorted(heights.dropna().unique())
    if any(after - before < _GAP for before, after in pairwise(ticks)):
        ticks = [0, 0.25, 0.5, 0.75, 1]
    places = [low + height * length for height in ticks]
    some = [math.exp(place) if log else place for place in places]
    labels = [shown(name, value) if is_fraction(name) else f"{value:.3g}" for value in some]
    return Axis(name, heights.round(4).fillna(UNUSED).tolist(), list(zip(ticks, labels, strict=True)))


def _lines(
    axes: list[Axis], keys: list[str], rows: range, name: str, colour: str, width: float, opacity: float
) -> go.Scatter:
    x: list[int | None] = []
    y: list[float | None] = []
    for row in rows:
        x += [*range(len(axes)), None]
        y += [*(axis.heights[row] for axis in axes), None]
    return go.Scatter(
        x=x, y=y, mode="lines", name=name, line={"color": colour, "width": width}, opacity=opacity, hoverinfo="skip",
        connectgaps=False, meta={"lines": keys[rows.start : rows.stop]},
    )  # fmt: skip


def _ticks(place: int, axis: Axis) -> list[dict[str, object]]:
    ticks = [*axis.ticks, *([(UNUSED, "not used")] if UNUSED in axis.heights else [])]
    return [
        {"x": place, "y": height, "text": text(label), "showarrow": False, "xanchor": "left", "xshift": 6,
         "font": {"size": 11}}
        for height, label in ticks
    ]  # fmt: skip


def _ranges(trials: pd.DataFrame, axes: list[Axis]) -> str:
    """What the best tenth of the trials have in common."""
    best = trials.head(math.ceil(len(trials) / 10))
    parts = []
    for axis in axes[:-1]:
        values = best[axis.name].dropna()
        number = pd.to_numeric(values, errors="coerce")
        if values.empty:
            continue
        if number.notna().all() and not pd.api.types.is_bool_dtype(values):
            low, high = float(number.min()), float(number.max())
            parts.append(f"{axis.name} {low:.3g}" + (f" to {high:.3g}" if high > low else ""))
        else:
            parts.append(f"{axis.name} {', '.join(named(str(kind)) for kind in values.unique())}")
    which = "The best trial has" if len(best) == 1 else f"The best {len(best)} of {len(trials)} trials have"
    return f"{which} {'; '.join(parts)}."


def response(found: Found, setting: str = "temperature") -> Chart:
    """The objective against one setting, by method, with the best plain student.

    Args:
        found: The results.
        setting: A numeric column of `trials`, such as temperature or alpha.
    """
    trials, goal = complete_trials(found), found.goal
    values = pd.to_numeric(trials[setting], errors="coerce") if setting in trials.columns else pd.Series(dtype=float)
    rows = trials[values.notna().reindex(trials.index, fill_value=False)]
    rows = rows[rows["method"] != PLAIN]
    if rows.empty:
        return nothing(f"No complete trial uses {setting}.")
    figure, styles, told = new_figure(height=360), method_style(methods_of(found)), []
    for method in methods_of(found):
        own = rows[rows["method"] == method]
        if own.empty:
            continue
        colour, marker = styles[method]
        figure.add_trace(go.Scatter(
            x=numbers(own[setting]), y=numbers(own[goal.column]), mode="markers", name=text(named(method)),
            marker={"color": colour, "symbol": marker, "size": 9, "opacity": 0.8},
            text=[f"{text(key)}<br>{text(settings_text(config))}"
                  for key, config in zip(own["trial"], own["config"], strict=True)],
            hovertemplate=f"%{{text}}<br>%{{y:{hover_format(goal.name)}}}<extra>{text(named(method))}</extra>",
        ))  # fmt: skip
        top = own.iloc[0]
        told.append(
            f"{named(method)} {shown(goal.column, float(top[goal.column]))} at {setting} {float(top[setting]):.3g} "
            f"({len(own)} complete trials)"
        )
    plain = found.plain()
    if not plain.empty:
        best = float(plain[goal.column].iloc[0])
        figure.add_hline(y=best, line={"color": GREY, "width": 1.5, "dash": "dash"})
        figure.add_annotation(
            x=1, xref="paper", y=best, text="best plain", showarrow=False, xanchor="right", yanchor="bottom",
            font={"size": 11, "color": GREY},
        )  # fmt: skip
        told.append(f"plain students {shown(goal.column, best)}")
    positive = float(rows[setting].min()) > 0 and float(rows[setting].max()) / float(rows[setting].min()) > 4
    if positive and setting != "alpha":
        figure.update_xaxes(type="log", **log_ticks(pd.to_numeric(rows[setting])))
    figure.update_xaxes(title={"text": text(setting)})
    figure.update_yaxes(title={"text": words(goal.column)}, tickformat=value_format(goal.name))
    return Chart(figure, f"The best of each method: {'; '.join(told)}.")


def importance(found: Found) -> Chart:
    """Importance of each setting among the complete trials, with the number of trials behind each."""
    rows = found.importance()
    if rows.empty:
        return nothing("Importance needs at least ten complete trials that drew a setting.")
    shares = rows["importance"] / rows["importance"].sum() if rows["importance"].sum() > 0 else rows["importance"]
    names = [f"{text(name)} (n = {count})" for name, count in zip(rows["parameter"], rows["trials"], strict=True)]
    figure = new_figure(height=110 + 34 * len(rows))
    figure.add_trace(go.Bar(
        x=numbers(shares), y=names, orientation="h", marker={"color": BLUE}, width=0.55,
        hovertemplate="%{y}: %{x:.0%}<extra></extra>",
    ))  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title={"text": "share of the total importance"}, tickformat=".0%", rangemode="tozero")
    told = ", ".join(
        f"{name} {share:.0%} (from {count_of(count, 'trial')})"
        for name, share, count in zip(rows["parameter"], shares, rows["trials"], strict=True)
    )
    return Chart(figure, f"Shares of the total importance: {told}.")
