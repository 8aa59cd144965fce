"""The `linear` learning-rate schedule."""

from __future__ import annotations

from kdsweep.training.schedules.base import SCHEDULES, Schedule
from kdsweep.training.shapes import remaining


@SCHEDULES.declare
class Linear(Schedule):
    """Linear decay to 0 over the budget."""

    name = "linear"

    def factor(self, progress: float) -> float:
        return remaining("linear", progress)
