"""Colours, markers, axes and text of all charts."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from kdsweep.errors import printable
from kdsweep.search.baseline import PLAIN
from kdsweep.tasks.metrics import is_fraction

# Distinguishable with any form of colour blindness. Source: Okabe and Ito 2008, "Color Universal Design". Its yellow
# and black are left out: they vanish on a white and on a dark page.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY)
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "pentagon", "triangle-down")
GREY = "#808080"
INK = "#30343b"  # the page replaces it with its text colour
GRID = "rgba(128,128,128,0.22)"
DIGITS = 5  # significant digits of values in a figure; more would only make the page larger


@dataclass
class Chart:
    """A figure and what it says.

    Attributes:
        figure: The figure; without traces if there is nothing to show.
        text: One or more sentences with the chart's numbers, or the reason why there is nothing to show.
    """

    figure: go.Figure
    text: str

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.figure.data


def nothing(why: str) -> Chart:
    """A chart without data."""
    figure = new_figure()
    figure.add_annotation(text=text(why), showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return Chart(figure, why)


def new_figure(height: int = 420, **layout: Any) -> go.Figure:
    """An empty figure in the style of the page."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 16, "r": 16, "t": 16, "b": 16},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "title": {"text": ""}},
        hoverlabel={"align": "left"},
        hovermode="closest",
        dragmode=False,
    )
    # After the template, whose axes have no grid.
    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(**layout)
    return figure


def text(value: object) -> str:
    """Escape text for a figure: plotly reads tags such as <b> in labels, and `%{...}` is left to templates."""
    return html.escape(printable(str(value)), quote=False)


def method_style(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method; plain students are grey circles."""
    distilled = [name for name in methods if name != PLAIN]
    styles = {
        name: (COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]) for place, name in enumerate(distilled)
    }
    return styles | {PLAIN: (GREY, "circle-open")}


def named(method: str) -> str:
    """Name of a method in a chart's text."""
    return "plain" if method == PLAIN else method


def tinted(colour: str, opacity: float) -> str:
    """The colour with an opacity, as `rgba(...)`."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def numbers(values: Any) -> list[float | None]:
    """Round values for a figure; NaN becomes None."""
    return [None if value != value else float(f"{float(value):.{DIGITS}g}") for value in values]


def words(column: str) -> str:
    """A column's name as words."""
    return column.replace("val_", "validation ").replace("_", " ")


def value_format(metric: str) -> str:
    """Format of a metric's values on an axis, in d3's notation."""
    return ".1%" if is_fraction(metric) else ".4~g"


def hover_format(metric: str) -> str:
    """Format of a metric's values in a hover label, in d3's notation."""
    return ".2%" if is_fraction(metric) else ".4~g"


def log_ticks(values: Iterable[float]) -> dict[str, Any]:
    """Ticks of a logarithmic axis as layout. Plotly would label those between powers of ten with their digit alone.

    Args:
        values: What the axis shows, above 0.
    """
    known = [float(value) for value in values]
    low, high = min(known) / 1.25, max(known) * 1.25
    ticks: list[float] = []
    halves, fifths = [digit / 2 for digit in range(2, 20)], [digit / 5 for digit in range(5, 50)]
    for digits in ([1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7], halves, fifths):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [tick for power in powers for digit in digits if low <= (tick := digit * 10.0**power) <= high]
        if len(ticks) >= 3:
            break
    return {"tickvals": ticks, "ticktext": [f"{tick:,.0f}" if tick >= 1000 else f"{tick:.3g}" for tick in ticks]}
