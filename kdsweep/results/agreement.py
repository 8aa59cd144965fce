"""What can be said of students that were trained without labels: how well they agree with their teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kdsweep.results.gains import LEVEL
from kdsweep.results.student_t import quantile
from kdsweep.tasks import Goal
from kdsweep.tasks.metrics import shown

NO_GAIN = (
    "No gain is claimed: without labels there is no plain student to compare with, and agreement with the teacher is "
    "not accuracy"
)


def interval(row: Mapping[str, Any], goal: Goal) -> str:
    """Return the confidence interval of the mean over the fresh seeds on the test split; empty with one seed.

    Args:
        row: The row of a confirmed trial.
        goal: The objective.
    """
    mean, std, seeds = row[goal.test_column], row.get(f"{goal.test_column}_std", math.nan), int(row["seeds"])
    if seeds < 2 or math.isnan(std):
        return ""
    half = quantile(LEVEL, seeds - 1) * std / math.sqrt(seeds)
    # Agreement is a share, and a divergence is never negative.
    low, high = max(0.0, mean - half), mean + half if goal.mode == "min" else min(1.0, mean + half)
    ends = " to ".join(shown(goal.test_column, end) for end in (low, high))
    return f"{100 * (1 - LEVEL):.4g} % interval {ends}"


def told(row: Mapping[str, Any], goal: Goal, teacher: Mapping[str, Any]) -> str:
    """Say in words how well a confirmed student agrees with its teacher, and how accurate both are if that is known.

    Args:
        row: The row of the trial.
        goal: The objective.
        teacher: Description of the teacher.
    """
    seeds = int(row["seeds"])
    many = ", ".join(filter(None, [interval(row, goal), f"{seeds} fresh seed{'s' if seeds > 1 else ''}"]))
    value = shown(goal.test_column, row[goal.test_column]) or "not measured"
    text = f"{goal.test_column.replace('_', ' ')} {value} ({many})"
    accuracy = row.get("test_accuracy", math.nan)
    if math.isnan(accuracy):
        return text
    beside = f" (teacher {shown('accuracy', teacher['test_accuracy'])})" if "test_accuracy" in teacher else ""
    return f"{text}, test accuracy {shown('accuracy', accuracy)}{beside}"
