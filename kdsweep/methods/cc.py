"""Correlation congruence."""

from __future__ import annotations

from kdsweep.distributions import LogUniform, RandInt
from kdsweep.lazy import nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, register


@register
class CorrelationCongruence(Method):
    """Correlation congruence: penalise correlated student-teacher differences of adjacent samples.

    Implements the variant of the RepDistiller benchmark, which published a weight for it, not the paper's Gaussian
    Gram matrices. Adapters: a linear projection of each embedding to `dim`.
    """

    name = "cc"
    formula = "mean over i of sum |delta_i · delta_i+1| over dim, delta = |P_s e_s - P_t e_t|"
    source = "Peng et al. 2019, arXiv:1904.01802, in the form of Tian et al. 2020, arXiv:1910.10699"
    needs = frozenset({"embedding"})
    dim = Param(128, "width of the projections", valid=RandInt(1, 65536))
    weight = Param(0.02, "scale of the term", LogUniform(0.002, 0.2), valid=WEIGHT)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        self._student = nn.Linear(student.embedding.shape[1], int(self.dim))
        self._teacher = nn.Linear(teacher.embedding.shape[1], int(self.dim))
        return nn.ModuleDict({"student": self._student, "teacher": self._teacher})

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the B - 1 pairs of adjacent samples; 0 for a batch of one."""
        ours, theirs = self._student(student.embedding.float()), self._teacher(teacher.embedding.float())
        delta = (ours - theirs).abs()
        products: torch.Tensor = (delta[:-1] * delta[1:]).sum()
        return products / max(1, len(delta) - 1)
