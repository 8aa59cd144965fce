"""Confirmed gains over plain students: means, intervals, and the differences on single seeds."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go

from kdsweep.results.confirmed import GAINS, verdict_of
from kdsweep.results.effort import efforts
from kdsweep.results.report.charts.style import BLUE, INK, ORANGE, Chart, named, new_figure, nothing, text
from kdsweep.results.report.found import Found
from kdsweep.results.report.seeds import seed_differences
from kdsweep.results.sizes import size_text
from kdsweep.search.baseline import PLAIN
from kdsweep.tasks.metrics import is_fraction, shown_gain

BASELINES = {"kd_gain": "over the plain twin", "kd_gain_tuned": "over the tuned plain student"}
_STYLES = {"kd_gain": (BLUE, "circle"), "kd_gain_tuned": (ORANGE, "diamond")}
_ROW = 84  # pixels per student


def gains(found: Found) -> Chart:
    """The confirmed gains with their 95 % intervals, and one small point per seed."""
    confirmed = found.confirmed
    if confirmed.empty:
        return nothing("No student has been confirmed on fresh seeds.")
    rows = confirmed[confirmed["method"] != PLAIN].to_dict("records")
    if not rows:
        return nothing("Only plain students were confirmed; they have no gain.")
    scale = 100 if is_fraction(found.goal.name) else 1
    unit = "percentage points" if scale == 100 else found.goal.name.replace("_", " ")
    figure = new_figure(height=130 + _ROW * len(rows))
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    for place, gain in enumerate(GAINS):
        _add_gain(figure, found, rows, gain, scale, shift=(0.5 - place) * 0.34)
    margin = float(rows[0]["margin"]) * scale if rows[0].get("margin") == rows[0].get("margin") else 0.0
    if margin:
        figure.add_vrect(x0=-margin, x1=margin, fillcolor="rgba(128,128,128,0.12)", line_width=0, layer="below")
    labels = [f"{text(row['trial'])}<br>{text(named(str(row['method'])))}, {text(size_text(row))}" for row in rows]
    places = list(range(len(rows)))
    figure.update_yaxes(tickvals=places, ticktext=labels, range=[len(rows) - 0.4, -0.6], showgrid=False)
    figure.update_xaxes(title={"text": f"gain on the test split ({unit})"}, ticks="", tickformat="+~g")
    told = [_told(row, found.goal.name) for row in rows] + efforts(found.effort(), confirmed)
    return Chart(figure, " ".join(told))


def _add_gain(
    figure: go.Figure, found: Found, rows: list[dict[str, Any]], gain: str, scale: float, shift: float
) -> None:
    colour, marker = _STYLES[gain]
    known = [(place, row) for place, row in enumerate(rows) if not math.isnan(row[gain])]
    if not known:
        return
    seeds = [(place, value) for place, row in known for value in seed_differences(found, row, gain)]
    figure.add_trace(go.Scatter(
        x=[round(value * scale, 4) for _, value in seeds], y=[place - shift for place, _ in seeds], mode="markers",
        marker={"symbol": f"{marker}-open", "size": 6, "color": colour, "opacity": 0.7}, showlegend=False,
        hovertemplate="one seed: %{x:+.2f}<extra></extra>",
    ))  # fmt: skip
    up = [_length(row[f"{gain}_high"], row[gain]) * scale for _, row in known]
    down = [_length(row[gain], row[f"{gain}_low"]) * scale for _, row in known]
    verdicts = [verdict_of(row, gain) for _, row in known]
    figure.add_trace(go.Scatter(
        x=[round(row[gain] * scale, 4) for _, row in known], y=[place - shift for place, _ in known],
        mode="markers", name=BASELINES[gain],
        marker={"symbol": marker, "size": 11, "color": colour},
        error_x={"type": "data", "array": up, "arrayminus": down, "color": colour, "thickness": 2, "width": 6},
        text=[text(verdict.text(found.goal.name)) if verdict else "no verdict" for verdict in verdicts],
        hovertemplate="%{text}<extra></extra>",
    ))  # fmt: skip


def _length(end: float, start: float) -> float:
    length = float(end) - float(start)
    return 0.0 if math.isnan(length) else length


def _told(row: dict[str, Any], metric: str) -> str:
    parts = []
    for gain, baseline in BASELINES.items():
        verdict = verdict_of(row, gain)
        if verdict is not None:
            parts.append(f"{verdict.text(metric)}, {baseline}")
        elif not math.isnan(row[gain]):
            parts.append(f"{shown_gain(metric, row[gain])}, {baseline}, without a verdict")
    return f"{row['trial']} ({row['method']}): {'; '.join(parts) or 'no gain was measured'}."
