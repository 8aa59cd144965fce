"""A section of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kdsweep.results.report.charts.style import Chart


@dataclass
class Section:
    """A section of the page with charts.

    Attributes:
        anchor: Its anchor.
        title: Its heading.
        intro: A sentence on how to read it.
        charts: Charts by name; the name is also the key of the figure in the page's data.
        layout: Class of the element around the charts: `charts` (below each other), or `pair` or `trio` (side by side
            where there is room).
        template: Template of what follows the charts; empty for nothing.
        rows: The template's data.
    """

    anchor: str
    title: str
    intro: str
    charts: dict[str, Chart] = field(default_factory=dict)
    layout: str = "charts"
    template: str = ""
    rows: Sequence[Any] = ()
