"""Overhaul of feature distillation."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Shapes, register
from kdsweep.methods.stages import bridge, match_stages


@register
class FeatureOverhaul(Method):
    """Partial L2 distance of stage maps: no penalty where both student and teacher are inactive.

    The paper compares pre-activation maps, with a negative margin: the teacher's mean negative value. kdsweep has
    post-activation maps, where active values are unchanged and inactive ones are 0, so the margin is 0. Stages are
    paired by resolution; the larger map is average-pooled. Adapters, for each pair: a 1 x 1 convolution with batch
    normalisation from the student's channels to the teacher's.
    """

    name = "ofd"
    formula = "sum over stages of 2^-(stages deeper) sum over [r_s > F_t or F_t > 0] of (r_s - F_t)², mean over B"
    source = "Heo et al. 2019, arXiv:1904.01866, with margin 0"
    needs = frozenset({"features"})
    weight = Param(1e-3, "scale of the term", LogUniform(1e-4, 1e-2), valid=WEIGHT)

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """Both models have stage maps."""
        match_stages(student.features, teacher.features)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        from kdsweep.methods.adapters.norm import BatchNorm2d

        self._pairs = match_stages(student.features, teacher.features)
        self._connectors = nn.ModuleList()
        for i, j in self._pairs:
            ours, theirs = student.features[i].shape[1], teacher.features[j].shape[1]
            convolution = nn.Conv2d(ours, theirs, 1, bias=False)
            self._connectors.append(nn.Sequential(convolution, BatchNorm2d(theirs)))
        return self._connectors

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Sum over channels and positions, mean over the batch; the deepest stage has weight 1."""
        total = student.logits.new_zeros((), dtype=torch.float32)
        for (i, j), connector in zip(self._pairs, self._connectors, strict=True):
            maps, theirs = bridge(student.features[i].float(), teacher.features[j].float())
            ours = connector(maps)
            counted = (ours > theirs) | (theirs > 0)
            partial = ((ours - theirs).square() * counted).sum() / len(ours)
            total = total / 2 + partial
        return total
