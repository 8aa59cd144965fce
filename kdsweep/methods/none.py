"""The plain student: no distillation."""

from __future__ import annotations

from kdsweep.distributions import Uniform
from kdsweep.lazy import torch
from kdsweep.methods.base import Method, Outputs, Param, register


@register
class Plain(Method):
    """No distillation: the baseline for every method."""

    name = "none"
    formula = "0"
    source = "the baseline"
    needs = frozenset()
    stacks = frozenset()
    weight = Param(0.0, "no distillation", valid=Uniform(0.0, 0.0))

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        return student.logits.new_zeros((), dtype=torch.float32)
