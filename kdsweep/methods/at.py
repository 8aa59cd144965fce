"""Attention transfer."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Shapes, register
from kdsweep.methods.stages import bridge, match_stages


@register
class AttentionTransfer(Method):
    """Attention transfer: match the spatial attention maps of student and teacher.

    Stages are paired by resolution; the larger attention map is average-pooled before it is normalised. Layers of texts
    are paired evenly; their attention maps are over the tokens.
    """

    name = "at"
    formula = "sum over stages of mean (q_s - q_t)², q = flattened mean over channels of F², L2-normalised"
    source = "Zagoruyko & Komodakis 2017, arXiv:1612.03928"
    needs = frozenset({"attention"})
    stacks = frozenset()
    weight = Param(1000.0, "scale of the term", LogUniform(10, 5000), valid=WEIGHT)

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """Both models have stage maps, or both have hidden states."""
        match_stages(student.features, teacher.features, states=True)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        self._pairs = match_stages(student.features, teacher.features, states=True)
        return nn.Module()

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        total = student.logits.new_zeros((), dtype=torch.float32)
        for i, j in self._pairs:
            ours, theirs = _directions(student.features[i].float(), teacher.features[j].float())
            total = total + F.mse_loss(ours, theirs)
        return total


def _directions(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention maps of two stage maps, or over the tokens of two hidden states, flattened and of length 1."""
    channels = 1 if student.ndim == 4 else 2
    ours, theirs = (features.pow(2).mean(dim=channels, keepdim=True) for features in (student, teacher))
    if student.ndim == 4:
        ours, theirs = bridge(ours, theirs)
    return F.normalize(ours.flatten(1), dim=1), F.normalize(theirs.flatten(1), dim=1)
