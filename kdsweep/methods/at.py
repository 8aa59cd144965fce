"""Attention transfer."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Shapes, register
from kdsweep.methods.stages import match_stages, pool, smaller_size


@register
class AttentionTransfer(Method):
    """Attention transfer: match the spatial attention maps of student and teacher.

    Stages are paired by resolution; the larger attention map is average-pooled before it is normalised.
    """

    name = "at"
    formula = "sum over stages of mean (q_s - q_t)², q = flattened mean over channels of F², L2-normalised"
    source = "Zagoruyko & Komodakis 2017, arXiv:1612.03928"
    needs = frozenset({"attention"})
    stacks = frozenset()
    weight = Param(1000.0, "scale of the term", LogUniform(10, 5000), valid=WEIGHT)

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """Both models have stage maps."""
        match_stages(student.features, teacher.features)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        self._pairs = match_stages(student.features, teacher.features)
        return nn.Module()

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        total = student.logits.new_zeros((), dtype=torch.float32)
        for i, j in self._pairs:
            size = smaller_size(student.features[i], teacher.features[j])
            ours, theirs = (_direction(f, size) for f in (student.features[i], teacher.features[j]))
            total = total + F.mse_loss(ours, theirs)
        return total


def _direction(features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    energy = features.float().pow(2).mean(dim=1, keepdim=True)
    return F.normalize(pool(energy, size).flatten(1), dim=1)
