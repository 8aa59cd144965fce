"""The base class of learning-rate schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdsweep.distributions import Uniform
from kdsweep.params import Declared, Param, Parts


class Schedule(Declared):
    """A multiplier of the learning rate that changes during training.

    A subclass declares its parameters as `Param` attributes and implements `factor`. Every schedule can begin with a
    linear warmup, which multiplies its factor.

    Args:
        epochs: The full budget, even if the trial is stopped early.
        params: Values of the declared parameters.
    """

    kind = "schedule"
    warmup_epochs = Param(0.0, "epochs over which the rate rises linearly to the schedule's", valid=Uniform(0.0, 1e6))

    def __init__(self, epochs: int, **params: Any):
        self.epochs = epochs
        super().__init__(**params)

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Require that the warmup ends within the budget."""
        if values.get("warmup_epochs", 0) > values.get("epochs", float("inf")):
            yield "warmup_epochs", f"found {values['warmup_epochs']:g}; accepted: at most the {values['epochs']} epochs"

    def multiplier(self, progress: float, step: float) -> float:
        """Return the multiplier of the learning rate, warmup included.

        The first step has 1/n of the schedule's rate if the warmup takes n steps, the n-th step all of it (Goyal et
        al. 2017, arXiv:1706.02677, section 2.2).

        Args:
            progress: Fraction of the budget's steps already done, 0 <= progress < 1.
            step: Fraction of the budget that one step takes.
        """
        factor = self.factor(progress)
        warmup = self.warmup_epochs / self.epochs
        return factor * (progress + step) / warmup if progress + step < warmup else factor

    def factor(self, progress: float) -> float:
        """Return the multiplier of the learning rate after the warmup.

        Args:
            progress: Fraction of the budget's steps already done, 0 <= progress < 1.
        """
        raise NotImplementedError


SCHEDULES: Parts[Schedule] = Parts(Schedule, "kdsweep.training.schedules")
