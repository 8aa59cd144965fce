"""Aligning embeddings by direction."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, register
from kdsweep.methods.vectors import unit


@register
class Cosine(Method):
    """Cosine distance between the student's embedding and the teacher's.

    A teacher whose width D_t is a multiple of the student's D_s is average-pooled to it. Adapters otherwise:
    a linear projection of the student from D_s to D_t.
    """

    name = "cosine"
    formula = "mean over the batch of 1 - cos(e_s, match(e_t))"
    source = "PyTorch's knowledge distillation tutorial, cosine loss run"
    needs = frozenset({"embedding"})
    weight = Param(1.0, "scale of the term", LogUniform(0.1, 10), valid=WEIGHT)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        """The projection, or nothing to train where pooling does."""
        ours, theirs = student.embedding.shape[1], teacher.embedding.shape[1]
        self._pooled = theirs // ours if theirs % ours == 0 else 1
        return nn.Identity() if theirs % ours == 0 else nn.Linear(ours, theirs)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the batch; 0 for the same direction, 2 for the opposite one."""
        target = F.avg_pool1d(teacher.embedding.float(), self._pooled)
        ours = self.adapters(student.embedding.float())
        return (1 - (unit(ours, dim=1) * unit(target, dim=1)).sum(dim=1)).mean()
