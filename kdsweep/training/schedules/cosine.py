"""The learning rate's `cosine` schedule."""

from __future__ import annotations

from kdsweep.training.schedules.base import SCHEDULES, Schedule
from kdsweep.training.shapes import remaining


@SCHEDULES.declare
class Cosine(Schedule):
    """Half a cosine to 0 over the budget.

    Loshchilov, Hutter 2017, arXiv:1608.03983, without its restarts.
    """

    name = "cosine"

    def factor(self, progress: float) -> float:
        """See `shapes`."""
        return remaining("cosine", progress)
