"""The contract of a learning-rate schedule."""

from __future__ import annotations

from typing import Any

from kdsweep.params import Declared, Parts


class Schedule(Declared):
    """What the learning rate is multiplied by over a training.

    A subclass declares its parameters as `Param` attributes and computes `factor`.

    Args:
        epochs: The full budget, however early a trial is stopped.
        params: Values of the declared parameters.
    """

    kind = "schedule"

    def __init__(self, epochs: int, **params: Any):
        self.epochs = epochs
        super().__init__(**params)

    def factor(self, progress: float) -> float:
        """The share of the learning rate, after a share of all steps.

        Args:
            progress: Share of the budget's steps already done, from 0 to below 1.
        """
        raise NotImplementedError


SCHEDULES: Parts[Schedule] = Parts(Schedule, "kdsweep.training.schedules")
