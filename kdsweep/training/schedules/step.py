"""The learning rate's `step` schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from kdsweep.distributions import Uniform, Valid
from kdsweep.params import Param
from kdsweep.training.schedules.base import SCHEDULES, Schedule


class RisingEpochs(Valid):
    """Lists of epochs, each later than the one before."""

    def contains(self, value: object) -> bool:
        """Whether `value` is one."""
        if not isinstance(value, list | tuple):
            return False
        return all(type(epoch) is int and epoch > 0 for epoch in value) and sorted(set(value)) == list(value)

    def described(self) -> str:
        """In words."""
        return "rising epochs"


@SCHEDULES.declare
class Step(Schedule):
    """Multiplied by gamma after each of some epochs."""

    name = "step"
    milestones: Param[list[int]] = Param([], "epochs after which the rate is lowered", valid=RisingEpochs())
    gamma = Param(0.1, "what the rate is multiplied by at each", valid=Uniform(0.0, 1.0))

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """It has at least one milestone."""
        if not values["milestones"]:
            yield "milestones", "missing; accepted: the epochs at which schedule step lowers the rate"

    def factor(self, progress: float) -> float:
        """Gamma to the power of the milestones that are behind."""
        epoch = math.floor(progress * self.epochs + 1e-9)
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
