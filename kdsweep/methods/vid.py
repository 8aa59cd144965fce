"""Variational information distillation."""

from __future__ import annotations

import math

from kdsweep.distributions import LogUniform
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Shapes, register
from kdsweep.methods.stages import bridge, match_stages

SMALLEST, START = 1e-5, 5.0


@register
class VariationalInformation(Method):
    """Negative log-likelihood of the teacher's maps under Gaussians with means predicted by the student.

    Stages are paired by resolution; the larger map is average-pooled. Adapters, for each pair: three 1 x 1
    convolutions that predict the means, and one variance per teacher channel.
    """

    name = "vid"
    formula = "sum over stages of 1/2 mean [(mu(F_s) - F_t)² / v + log v], v = softplus(theta) + 1e-5"
    source = "Ahn et al. 2019, arXiv:1904.05835"
    needs = frozenset({"features"})
    weight = Param(1.0, "scale of the term", LogUniform(0.1, 5), valid=WEIGHT)

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """Both models have stage maps."""
        match_stages(student.features, teacher.features)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        self._pairs = match_stages(student.features, teacher.features)
        shapes = [(student.features[i].shape[1], teacher.features[j].shape[1]) for i, j in self._pairs]
        self._means = nn.ModuleList(_predictor(ours, theirs) for ours, theirs in shapes)
        start = math.log(math.expm1(START - SMALLEST))
        self._thetas = nn.ParameterList(torch.full((theirs,), start) for _, theirs in shapes)
        return nn.ModuleDict({"means": self._means, "thetas": self._thetas})

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        total = student.logits.new_zeros((), dtype=torch.float32)
        for (i, j), mean, theta in zip(self._pairs, self._means, self._thetas, strict=True):
            ours, theirs = bridge(student.features[i].float(), teacher.features[j].float())
            variance = F.softplus(theta)[:, None, None] + SMALLEST
            total = total + ((mean(ours) - theirs).square() / variance + variance.log()).mean() / 2
        return total


def _predictor(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 1, bias=False),
    )
