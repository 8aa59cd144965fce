"""Cosine distance between embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdsweep.distributions import Choice, LogUniform
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Shapes, register
from kdsweep.methods.stages import stage
from kdsweep.methods.vectors import unit


@register
class Cosine(Method):
    """Cosine distance between the student's embedding and the teacher's.

    If the teacher's width D_t is a multiple of the student's D_s, the teacher's embedding is average-pooled to D_s.
    Adapters otherwise: a linear projection of the student's embedding from D_s to D_t. The tutorial compares the
    flattened last stage maps instead (`flat`).
    """

    name = "cosine"
    formula = "mean over the batch of 1 - cos(e_s, match(e_t))"
    source = "PyTorch's knowledge distillation tutorial, cosine loss run (flat 1)"
    needs = frozenset({"embedding"})
    stacks = frozenset()
    flat = Param(0, "1 compares the flattened last stage maps instead of the embeddings", valid=Choice((0, 1)))
    weight = Param(1.0, "scale of the term", LogUniform(0.1, 10), valid=WEIGHT)

    @classmethod
    def teacher_needs(cls, params: Mapping[str, Any]) -> frozenset[str]:
        return frozenset({"stage:-1"}) if params.get("flat", cls.flat.default) else cls.needs

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """Flattened maps need maps."""
        if self.flat:
            stage(student.features, -1, self.name, "student")
            stage(teacher.features, -1, self.name, "teacher")

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        """The projection, or nothing to train where pooling does."""
        ours, theirs = self._compared(student).shape[1], self._compared(teacher).shape[1]
        self._pooled = theirs // ours if theirs % ours == 0 else 1
        return nn.Identity() if theirs % ours == 0 else nn.Linear(ours, theirs)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the batch, from 0 (same direction) to 2 (opposite directions)."""
        target = F.avg_pool1d(self._compared(teacher).float(), self._pooled)
        ours = self.adapters(self._compared(student).float())
        return (1 - (unit(ours, dim=1) * unit(target, dim=1)).sum(dim=1)).mean()

    def _compared(self, outputs: Outputs) -> torch.Tensor:
        return outputs.features[-1].flatten(1) if self.flat else outputs.embedding
