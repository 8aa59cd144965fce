"""The `step` learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from kdsweep.distributions import Uniform, Valid
from kdsweep.params import Param
from kdsweep.training.schedules.base import SCHEDULES, Schedule


class RisingEpochs(Valid):
    """Strictly increasing lists of epochs."""

    def contains(self, value: object) -> bool:
        if not isinstance(value, list | tuple):
            return False
        return all(type(epoch) is int and epoch > 0 for epoch in value) and sorted(set(value)) == list(value)

    def described(self) -> str:
        return "increasing epoch numbers"


@SCHEDULES.declare
class Step(Schedule):
    """Multiplies the learning rate by gamma at each milestone."""

    name = "step"
    milestones: Param[list[int]] = Param([], "epochs after which the rate is lowered", valid=RisingEpochs())
    gamma = Param(0.1, "factor applied to the rate at each milestone", valid=Uniform(0.0, 1.0))

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Require at least one milestone."""
        yield from super().faults(values)
        if not values["milestones"]:
            yield "milestones", "missing; accepted: the epochs at which schedule step lowers the rate"

    def factor(self, progress: float) -> float:
        """Return gamma to the power of the number of milestones passed."""
        epoch = math.floor(progress * self.epochs + 1e-9)
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
