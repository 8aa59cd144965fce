"""Distillation from a stronger teacher."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Temperature, register
from kdsweep.methods.vectors import unit


@register
class Correlation(Method):
    """Pearson correlation of class probabilities: over classes per sample, and over samples per class.

    A constant vector (a class in a batch of one, for example) counts as uncorrelated and gives no gradient.
    """

    name = "dist"
    formula = "T² [beta (1 - mean row Pearson) + gamma (1 - mean column Pearson)] of softmax(z / T)"
    source = "Huang et al. 2022, arXiv:2205.10536"
    stacks = frozenset({"temperature", "beta", "gamma"})
    temperature = Temperature(4.0, LogUniform(1, 8))
    beta = Param(1.0, "weight of the correlation over classes", valid=WEIGHT)
    gamma = Param(1.0, "weight of the correlation over samples", valid=WEIGHT)
    weight = Param(2.0, "scale of the term", LogUniform(0.5, 8), valid=WEIGHT)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        ours, theirs = ((z.logits.float() / self.temperature).softmax(dim=1) for z in (student, teacher))
        rows, columns = (1 - _pearson(ours, theirs, dim) for dim in (1, 0))
        return self.temperature**2 * (self.beta * rows + self.gamma * columns)


def _pearson(a: torch.Tensor, b: torch.Tensor, dim: int) -> torch.Tensor:
    """Mean Pearson correlation of the vectors along `dim`."""
    a, b = (unit(x - x.mean(dim=dim, keepdim=True), dim, smallest=1e-7) for x in (a, b))
    return (a * b).sum(dim=dim).mean()
