"""Similarity-preserving distillation."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Shapes, register
from kdsweep.methods.stages import stage
from kdsweep.methods.vectors import unit


@register
class SimilarityPreserving(Method):
    """Similarity-preserving distillation: match the Gram matrices of the batch's last stage maps.

    The loss scale falls with the batch size, so keep the batch size fixed within a sweep. For texts, the maps are the
    last hidden states.
    """

    name = "sp"
    formula = "sum (G_s - G_t)² / B², G = F Fᵀ of the flattened last map, rows L2-normalised"
    source = "Tung & Mori 2019, arXiv:1907.09682"
    needs = frozenset({"stage:-1"})
    stacks = frozenset()
    weight = Param(3000.0, "scale of the term", LogUniform(100, 1e4), valid=WEIGHT)

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """Both models have a last stage map, or last hidden states."""
        stage(student.features, -1, self.name, "student", states=True)
        stage(teacher.features, -1, self.name, "teacher", states=True)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        ours, theirs = (_similarity(o.features[-1].float().flatten(1)) for o in (student, teacher))
        return (ours - theirs).square().mean()


def _similarity(vectors: torch.Tensor) -> torch.Tensor:
    return unit(vectors @ vectors.T, dim=1)
