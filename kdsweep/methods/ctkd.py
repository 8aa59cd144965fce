"""Curriculum temperature."""

from __future__ import annotations

import math

from kdsweep.lazy import nn, torch
from kdsweep.methods.base import FRACTION, Method, Outputs, Param, register
from kdsweep.methods.dkd import ramp
from kdsweep.methods.kd import soft_kl

LOWEST, SPAN = 1.0, 20.0


@register
class CurriculumTemperature(Method):
    """Soft targets at a temperature that is trained against the student, more and more so.

    Adapters: theta, from which T follows. Its gradient is multiplied by a factor that falls from 0 to -1
    along a cosine; the factor is a buffer.
    """

    name = "ctkd"
    formula = "T² KL(softmax(z_t / T) ‖ softmax(z_s / T)), T = 1 + 20 sigmoid(theta), theta's gradient reversed"
    source = "Li et al. 2023, arXiv:2211.16231"
    reversal_fraction = Param(0.1, "share of training over which the reversal grows", valid=FRACTION)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        """Theta at 1, as in the source."""
        module = nn.Module()
        module.register_parameter("theta", nn.Parameter(torch.ones(())))
        module.register_buffer("reversal", -torch.ones(()))
        return module

    def advance(self, progress: float, index: torch.Tensor) -> None:
        """Move the factor along its cosine."""
        share = ramp(progress, self.reversal_fraction)
        self.adapters.get_buffer("reversal").fill_((math.cos(math.pi * share) - 1) / 2)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """See `soft_kl`."""
        theta = self.adapters.get_parameter("theta")
        fixed = theta.detach()
        against = fixed + self.adapters.get_buffer("reversal") * (theta - fixed)
        return soft_kl(student.logits, teacher.logits, LOWEST + SPAN * against.sigmoid())
