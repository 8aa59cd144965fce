"""The learning rate's `linear` schedule."""

from __future__ import annotations

from kdsweep.training.schedules.base import SCHEDULES, Schedule
from kdsweep.training.shapes import remaining


@SCHEDULES.declare
class Linear(Schedule):
    """A line to 0 over the budget."""

    name = "linear"

    def factor(self, progress: float) -> float:
        """See `shapes`."""
        return remaining("linear", progress)
