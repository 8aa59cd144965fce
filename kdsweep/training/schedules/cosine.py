"""The `cosine` learning-rate schedule."""

from __future__ import annotations

from kdsweep.training.schedules.base import SCHEDULES, Schedule
from kdsweep.training.shapes import remaining


@SCHEDULES.declare
class Cosine(Schedule):
    """Cosine decay to 0 over the budget.

    Loshchilov, Hutter 2017, arXiv:1608.03983, without the restarts.
    """

    name = "cosine"

    def factor(self, progress: float) -> float:
        return remaining("cosine", progress)
