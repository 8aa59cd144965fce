"""Logit matching."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import F, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, register


@register
class LogitMSE(Method):
    """Logit matching: mean squared error between the logits."""

    name = "mse"
    formula = "mean over batch and classes of (z_s - z_t)²"
    source = "Ba & Caruana 2014, arXiv:1312.6184"
    stacks = frozenset()
    weight = Param(0.1, "scale of the term", LogUniform(0.01, 1), valid=WEIGHT)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(student.logits.float(), teacher.logits.float())
