"""The `linear` learning-rate schedule."""

from __future__ import annotations

from kdsweep.training.schedules.base import SCHEDULES
from kdsweep.training.schedules.decay import Decay


@SCHEDULES.declare
class Linear(Decay):
    """Linear decay over the budget, to 0 or to a fraction of the rate."""

    name = "linear"
