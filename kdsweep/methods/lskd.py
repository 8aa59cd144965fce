"""Logit standardisation."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Temperature, register
from kdsweep.methods.kd import soft_kl


def standardised(logits: torch.Tensor) -> torch.Tensor:
    """Row-wise z-scores of logits [B, C], in float32, with the unbiased standard deviation."""
    logits = logits.float()
    return (logits - logits.mean(dim=1, keepdim=True)) / (logits.std(dim=1, keepdim=True) + 1e-7)


@register
class StandardisedKD(Method):
    """Soft targets from standardised logits: match the shape of the logits, not their scale."""

    name = "lskd"
    formula = "T² KL(softmax(n(z_t) / T) ‖ softmax(n(z_s) / T)), n(z) = (z - mean) / (std + 1e-7) of each row"
    source = "Sun et al. 2024, arXiv:2403.01427"
    stacks = frozenset({"temperature"})
    temperature = Temperature(2.0, LogUniform(1, 8))
    weight = Param(10.0, "scale of the term", LogUniform(1, 30), valid=WEIGHT)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        return soft_kl(standardised(student.logits), standardised(teacher.logits), self.temperature)
