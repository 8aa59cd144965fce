"""What students are compared at: student, budget and width. In frames, the budget of a trial is `budget_epochs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from kdsweep.errors import InputError, did_you_mean
from kdsweep.words import count_of

BUDGET = "budget_epochs"  # `epochs` is the number of trained epochs
COLUMNS = ("student", BUDGET, "width")


def as_columns(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with its keys as columns of the frames call them."""
    return {BUDGET if key == "epochs" else key: value for key, value in config.items()}


def columns_of(frame: pd.DataFrame) -> list[str]:
    """The columns of a frame by which sizes differ; `width` alone, unless students or budgets are searched."""
    return [name for name in COLUMNS if name in frame.columns]


def of_size(frame: pd.DataFrame, row: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a frame with the size of a row of the same sweep."""
    for name in columns_of(frame):
        value = row.get(name)
        frame = frame[frame[name].isna()] if value is None or pd.isna(value) else frame[frame[name] == value]
    return frame


def of_sizes(frame: pd.DataFrame, wanted: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a frame whose student, budget or width is a wanted one.

    Args:
        frame: The trials of a sweep.
        wanted: The values by column; columns that are left out may have any.

    Raises:
        InputError: If no row has one of them.
    """
    for name, value in wanted.items():
        if frame.empty:
            raise InputError(f"{name}: found {value!r}; accepted: none, because no trial has begun")
        if name not in frame:
            searched = "space.epochs" if name == BUDGET else f"space.{name}"
            raise InputError(f"{name}: found {value!r}, but the sweep has no {searched}; leave it out")
        known = sorted(frame[name].dropna().unique())
        if value not in known:
            accepted = f"accepted: {', '.join(f'{one:g}' for one in known[:10])}" if name != "student" else ""
            raise InputError(f"{name}: found {value!r}; {accepted or did_you_mean(value, known)}")
    for name, value in wanted.items():
        frame = frame[frame[name] == value]
    return frame


def size_text(row: Mapping[str, Any]) -> str:
    """Name the size of a trial: `width 0.5`, `wrn(depth=16), width 1, 20 epochs`."""
    student, budget = row.get("student"), row.get(BUDGET)
    parts = [student] if isinstance(student, str) else []
    parts.append(f"width {row['width']:g}")
    return ", ".join([*parts, *([] if budget is None or pd.isna(budget) else [count_of(float(budget), "epoch")])])


def size_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """A key that is equal for rows of one size."""
    values = (row.get(name) for name in COLUMNS)
    return tuple(None if value is None or pd.isna(value) else value for value in values)
