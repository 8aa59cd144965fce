"""The learning rate's `constant` schedule."""

from __future__ import annotations

from kdsweep.training.schedules.base import SCHEDULES, Schedule
from kdsweep.training.shapes import remaining


@SCHEDULES.declare
class Constant(Schedule):
    """The same rate throughout."""

    name = "constant"

    def factor(self, progress: float) -> float:
        """See `shapes`."""
        return remaining("constant", progress)
