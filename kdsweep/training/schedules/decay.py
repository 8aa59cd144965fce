"""Decay along a shape, the base of the `cosine` and `linear` schedules."""

from __future__ import annotations

from kdsweep.distributions import Uniform
from kdsweep.params import Param
from kdsweep.training.schedules.base import Schedule
from kdsweep.training.shapes import remaining


class Decay(Schedule):
    """Follows the decay shape of its own name, down to `final_lr_fraction`."""

    final_lr_fraction = Param(0.0, "fraction of the learning rate that is left at the end", valid=Uniform(0.0, 1.0))

    def factor(self, progress: float) -> float:
        left = remaining(self.name, progress)
        return left + self.final_lr_fraction * (1 - left)
