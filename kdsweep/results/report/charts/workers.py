"""How busy the workers were, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from kdsweep.results.report.charts.style import BLUE, GREY, Chart, new_figure, nothing, text, tinted


def utilisation(environment: Mapping[str, Any]) -> Chart:
    """The stages of the last run over time, and the share of the workers' time that was spent on work.

    Args:
        environment: The content of environment.json.
    """
    timeline = environment.get("timeline") or {}
    stages, workers = timeline.get("stages") or {}, timeline.get("workers") or 0
    rows = []
    for name, times in stages.items():
        length = (timeline["end"] if times["end"] is None else times["end"]) - times["begin"]
        if workers and length > 0:
            rows.append((name, times["begin"], length, min(1.0, times["busy"] / (workers * length))))
    if not rows:
        return nothing("The times of the workers were not recorded.")
    figure = new_figure(height=120 + 44 * len(rows), barmode="overlay")
    names = [text(name) for name, *_ in rows]
    spent = [share * length for _, _, length, share in rows]
    idle = [(1 - share) * length for _, _, length, share in rows]
    begins = [begin for _, begin, _, _ in rows]
    hover = [f"{text(name)}: {length:.0f} s, workers {share:.0%} busy" for name, _, length, share in rows]
    for label, colour, base, lengths in (
        ("busy", BLUE, begins, spent),
        ("idle", tinted(GREY, 0.35), [begin + busy for begin, busy in zip(begins, spent, strict=True)], idle),
    ):
        figure.add_trace(go.Bar(
            x=[round(value, 2) for value in lengths], base=[round(value, 2) for value in base], y=names,
            orientation="h", name=label, marker={"color": colour}, width=0.5, text=hover, textposition="none",
            hovertemplate="%{text}<extra></extra>",
        ))  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title={"text": "seconds since the run began"}, rangemode="tozero")
    told = "; ".join(f"{name} {length:.0f} s, {share:.0%} busy" for name, _, length, share in rows)
    return Chart(figure, f"{workers} workers. {told[0].upper()}{told[1:]}. The last run of the driver only.")
