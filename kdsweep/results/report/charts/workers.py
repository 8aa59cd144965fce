"""How busy the workers were, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from kdsweep.results.report.charts.style import BLUE, GREY, Chart, new_figure, nothing, text, tinted
from kdsweep.words import count_of

_PREPARE = "prepare"
_ROWS = 40  # most rows; the earliest runs are left out


@dataclass(frozen=True)
class _Stage:
    """A stage of a run that had work.

    Attributes:
        name: Its name.
        begin: When it began, in seconds since the first run began; runs follow each other without a gap.
        length: How long it took, in seconds.
        busy: Share of the workers' time that was spent on work, 0 to 1.
    """

    name: str
    begin: float
    length: float
    busy: float


def utilisation(environment: Mapping[str, Any]) -> Chart:
    """The stages over time, and the share of the workers' time that was spent on work.

    Args:
        environment: The content of environment.json. Every record in it that has a `timeline` is a run of the driver;
            runs that had nothing to do are left out.
    """
    runs = [(workers, stages) for workers, stages in _runs(environment) if stages]
    # A run without work prepares all the same; if there is nothing else yet, that is shown.
    runs = [run for run in runs if any(stage.name != _PREPARE for stage in run[1])] or runs[-1:]
    if not runs:
        return nothing("No run has recorded the times of its workers.")
    first = sum(len(stages) for _, stages in runs) - _ROWS
    rows = [(number, *run) for number, run in enumerate(runs, 1)]
    while first > 0:
        first -= len(rows.pop(0)[2])
    names, shown, told, offset = [], [], [], 0.0
    for number, workers, stages in rows:
        about = [f"{stage.name} {stage.length:.0f} s, {stage.busy:.0%} busy" for stage in stages]
        told.append(
            f"{f'Run {number}' if len(runs) > 1 else 'One run'} with {count_of(workers, 'worker')}: {'; '.join(about)}."
        )
        names += [text(f"{stage.name} (run {number})" if len(runs) > 1 else stage.name) for stage in stages]
        shown += [(offset + stage.begin, stage) for stage in stages]
        offset += max(stage.begin + stage.length for stage in stages)
    figure = new_figure(height=120 + 40 * len(names), barmode="overlay")
    hover = [f"{text(stage.name)}: {stage.length:.0f} s, workers {stage.busy:.0%} busy" for _, stage in shown]
    spent = [stage.busy * stage.length for _, stage in shown]
    for label, colour, base, lengths, marks in (
        ("busy", BLUE, [begin for begin, _ in shown], spent, None),
        ("idle", tinted(GREY, 0.35), [begin + busy for (begin, _), busy in zip(shown, spent, strict=True)],
         [stage.length - busy for (_, stage), busy in zip(shown, spent, strict=True)],
         [f"{stage.busy:.0%}" for _, stage in shown]),
    ):  # fmt: skip
        figure.add_trace(go.Bar(
            x=[round(value, 2) for value in lengths], base=[round(value, 2) for value in base], y=names,
            orientation="h", name=label, marker={"color": colour}, width=0.55, text=marks, textposition="outside",
            customdata=hover, hovertemplate="%{customdata}<extra></extra>", cliponaxis=False,
        ))  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    end = max(begin + stage.length for begin, stage in shown)
    figure.update_xaxes(title={"text": "seconds of driver time"}, range=[0, round(1.08 * end, 2)])
    return Chart(figure, " ".join(told))


def _runs(environment: Mapping[str, Any]) -> Iterator[tuple[int, list[_Stage]]]:
    """The workers and the stages of each run, the earliest first."""
    seen: list[Any] = []
    for record in _records(environment):
        timeline = record["timeline"]
        if timeline not in seen and isinstance(timeline.get("workers"), int):
            seen.append(timeline)
            yield timeline["workers"], list(_stages(timeline))


def _records(environment: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every record with a timeline: those in lists, in their order, then the file itself as the latest."""
    for value in environment.values():
        for record in value if isinstance(value, list) else ():
            if isinstance(record, Mapping) and isinstance(record.get("timeline"), Mapping):
                yield record
    if isinstance(environment.get("timeline"), Mapping):
        yield environment


def _stages(timeline: Mapping[str, Any]) -> Iterator[_Stage]:
    workers = timeline["workers"]
    for name, times in (timeline.get("stages") or {}).items():
        length = (timeline["end"] if times["end"] is None else times["end"]) - times["begin"]
        if workers and length > 0 and times["busy"] > 0:
            yield _Stage(name, times["begin"], length, min(1.0, times["busy"] / (workers * length)))
