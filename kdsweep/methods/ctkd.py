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
    """Soft targets with a temperature trained adversarially, to make the student's task harder.

    Adapters: theta, which determines T. Its gradient is multiplied by a factor that goes from 0 to -1 along a
    cosine; the factor is a buffer.
    """

    name = "ctkd"
    formula = "T² KL(softmax(z_t / T) ‖ softmax(z_s / T)), T = 1 + 20 sigmoid(theta), theta's gradient reversed"
    source = "Li et al. 2023, arXiv:2211.16231"
    stacks = frozenset()
    reversal_fraction = Param(0.1, "fraction of training over which the gradient reversal ramps up", valid=FRACTION)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        module = nn.Module()
        module.register_parameter("theta", nn.Parameter(torch.ones(())))  # 1, as in the paper
        module.register_buffer("reversal", -torch.ones(()))
        return module

    def advance(self, progress: float, index: torch.Tensor) -> None:
        share = ramp(progress, self.reversal_fraction)
        self.adapters.get_buffer("reversal").fill_((math.cos(math.pi * share) - 1) / 2)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        theta = self.adapters.get_parameter("theta")
        fixed = theta.detach()
        against = fixed + self.adapters.get_buffer("reversal") * (theta - fixed)
        return soft_kl(student.logits, teacher.logits, LOWEST + SPAN * against.sigmoid())
