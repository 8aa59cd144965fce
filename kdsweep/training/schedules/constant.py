"""The `constant` learning-rate schedule."""

from __future__ import annotations

from kdsweep.training.schedules.base import SCHEDULES, Schedule
from kdsweep.training.shapes import remaining


@SCHEDULES.declare
class Constant(Schedule):
    """A constant learning rate."""

    name = "constant"

    def factor(self, progress: float) -> float:
        return remaining("constant", progress)
