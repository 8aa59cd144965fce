"""The base class of learning-rate schedules."""

from __future__ import annotations

from typing import Any

from kdsweep.params import Declared, Parts


class Schedule(Declared):
    """A multiplier of the learning rate that changes during training.

    A subclass declares its parameters as `Param` attributes and implements `factor`.

    Args:
        epochs: The full budget, even if the trial is stopped early.
        params: Values of the declared parameters.
    """

    kind = "schedule"

    def __init__(self, epochs: int, **params: Any):
        self.epochs = epochs
        super().__init__(**params)

    def factor(self, progress: float) -> float:
        """Return the multiplier of the learning rate.

        Args:
            progress: Fraction of the budget's steps already done, 0 <= progress < 1.
        """
        raise NotImplementedError


SCHEDULES: Parts[Schedule] = Parts(Schedule, "kdsweep.training.schedules")
