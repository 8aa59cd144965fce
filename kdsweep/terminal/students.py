"""The table of the best students, laid out for the width of the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from rich.console import RenderableType

from kdsweep.errors import printable
from kdsweep.results.confirmed import verdict_of
from kdsweep.results.frames import Results
from kdsweep.search.baseline import PLAIN
from kdsweep.tasks.metrics import Goal, shown, shown_gain
from kdsweep.terminal.layout import INDENT, Column, fitting, flowed, table
from kdsweep.terminal.progress import config_parts

# Columns that are left out where the width is small, in this order; the others are always there.
MINOR = ("epochs", "smaller", "size")
ONE_LINE = ("epochs", "smaller", "tuned_plain", "plain", "size")
NARROW = (*MINOR, "parameters", "test")  # then all other numbers
_GAINS = {"kd_gain": ("plain", "its plain twin"), "kd_gain_tuned": ("tuned_plain", "the tuned plain student")}


@dataclass
class _Row:
    """A row of the table.

    Attributes:
        label: The trial's key, or what the row is.
        settings: The settings, one by one.
        cells: The numbers, by column.
        gains: For each gain in `_GAINS`, the baseline's mean and the gain; without entry if there is none.
    """

    label: str
    settings: list[str]
    cells: dict[str, str]
    gains: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    def below(self, width: int, with_settings: bool) -> list[str]:
        """The lines under the row."""
        lines = flowed(_listed(self.settings), width) if with_settings else []
        for gain, (mean, parts) in self.gains.items():
            lines += flowed([f"over {_GAINS[gain][1]} ({mean}):", *_listed(parts)], width)
        return lines


def student_table(results: Results, students: pd.DataFrame, width: int) -> RenderableType:
    """Build the table of students, the best plain student and the teacher.

    One line a student if everything fits, if need be without the columns `ONE_LINE`. Otherwise the gains stand under
    their student, then the settings too; then the columns `NARROW` are left out in turn. Keys and numbers are never
    broken.

    Args:
        results: The results.
        students: The rows to show.
        width: The width available.
    """
    rows = _rows(results, students)
    further = tuple(goal.column for goal in _further(results))
    label, settings, numbers, gains = _columns(rows, results.goal, further)
    everything = fitting([label, settings, *numbers, *gains], ONE_LINE if gains else MINOR, width)
    if everything:
        return table(everything)
    with_settings = fitting([label, settings, *numbers], MINOR, width)
    columns = with_settings or fitting([label, *numbers], (*NARROW, *further, "val"), width) or [label]
    return table(columns, [row.below(width - INDENT, not with_settings) for row in rows])


def _listed(parts: list[str]) -> list[str]:
    """The parts with commas between them."""
    return [*(f"{part}," for part in parts[:-1]), *parts[-1:]]


def _rows(results: Results, students: pd.DataFrame) -> list[_Row]:
    confirmed = {row["trial"]: row for row in results.confirmed.to_dict("records")}
    rows = [
        _student(label or str(row["trial"]), row, confirmed.get(row["trial"], {}), results)
        for label, frame in (("", students), ("best plain", results.plain()))
        for row in frame.to_dict("records")
    ]
    return [*rows, *(_teacher(name, teacher, results) for name, teacher in results.teachers.items())]


def _columns(
    rows: list[_Row], goal: Goal, further: tuple[str, ...]
) -> tuple[Column, Column, list[Column], list[Column]]:
    """The label, the settings, the numbers that are known and the gains that are known."""
    label = Column("label", "trial", [row.label for row in rows], left=True)
    settings = Column("settings", "settings", [", ".join(row.settings) for row in rows], left=True)
    titles = {
        "parameters": "parameters",
        "size": "MiB",
        "smaller": "smaller",
        "epochs": "epochs",
        "val": "\n".join(goal.column.split("_", 1)),
        **{column: "\n".join(column.split("_", 1)) for column in further},
        "test": "\n".join(goal.test_column.split("_", 1)),
    }
    numbers = [Column(name, title, [row.cells.get(name, "") for row in rows]) for name, title in titles.items()]
    gains = []
    for gain, (name, _) in _GAINS.items():
        known = [row.gains.get(gain, ("", [])) for row in rows]
        words = name.replace("_", " ")
        gains.append(Column(name, words, [mean for mean, _ in known]))
        gains.append(Column(gain, f"gain over {words}", [", ".join(parts) for _, parts in known], left=True))
    return label, settings, [one for one in numbers if any(one.cells)], [one for one in gains if any(one.cells)]


def _student(label: str, row: Mapping[str, Any], judged: Mapping[str, Any], results: Results) -> _Row:
    goal = results.goal
    cells = {
        "parameters": f"{int(row['parameters']):,}",
        "size": f"{row['size_mb']:.3f}",
        "smaller": f"{1 - row['size_mb'] / results.teacher['size_mb']:.2%}" if results.teacher else "",
        "epochs": str(row["epochs"]),
        "val": shown(goal.column, row[goal.column]),
        **{one.column: shown(one.column, row[one.column]) for one in _further(results)},
    }
    settings = [printable(part) for part in config_parts(results.config(str(row["trial"])))]
    if not judged:
        return _Row(label, settings, cells)
    test, gains = goal.test_column, {}
    for gain, (plain, _) in _GAINS.items():
        # A plain student has no gain: it is its own plain twin.
        if row["method"] != PLAIN and not math.isnan(judged[f"{plain}_{test}"]):
            gains[gain] = (_mean(judged, f"{plain}_{test}", goal), _gain(judged, gain, goal))
    return _Row(label, settings, cells | {"test": _mean(judged, test, goal)}, gains)


def _teacher(name: str, teacher: Mapping[str, Any], results: Results) -> _Row:
    goal, label = results.goal, f"teacher {name}".rstrip()
    if not teacher:
        return _Row(label, [], {})
    cells = {
        "parameters": f"{teacher['parameters']:,}",
        "size": f"{teacher['size_mb']:.3f}",
        "epochs": str(teacher["epochs"] or ""),
        "val": shown(goal.column, teacher.get(goal.column, math.nan)),
        **{one.column: shown(one.column, teacher.get(one.column, math.nan)) for one in _further(results)},
        "test": shown(goal.test_column, teacher.get(goal.test_column, math.nan)),
    }
    return _Row(label, [printable(str(teacher["model"]))], cells)


def _further(results: Results) -> list[Goal]:
    """The objectives after the first that have no column anyway."""
    return [goal for goal in results.goals[1:] if goal.column not in ("parameters", "size_mb")]


def _gain(judged: Mapping[str, Any], gain: str, goal: Goal) -> list[str]:
    """The mean gain with its interval, and the verdict in words."""
    verdict = verdict_of(judged, gain)
    if verdict is None:  # confirmed by version 0.1.0
        return [shown_gain(goal.name, judged[gain])]
    mean = f"{shown_gain(goal.name, verdict.mean)} " if verdict.seeds else ""
    return [f"{mean}({verdict.ends(goal.name)})", verdict.conclusion(goal.name)]


def _mean(judged: Mapping[str, Any], name: str, goal: Goal) -> str:
    std = judged[f"{name}_std"]
    spread = "" if math.isnan(std) else f" ± {shown_gain(goal.name, std).removeprefix('+')}"
    return shown(name, judged[name]) + spread
