"""Sums of methods: `kd+at` adds the two terms, each with its own weight."""

from __future__ import annotations

from collections.abc import Mapping

from kdsweep.distributions import Uniform
from kdsweep.errors import MethodError
from kdsweep.lazy import nn, torch
from kdsweep.methods.base import Method, Outputs, Param


class MethodSum(Method):
    """Weighted sum of methods, `sum_i weight_i * term_i`; the sum's own weight is 1.

    Args:
        parts: The methods by name.
    """

    name = "sum"
    formula = "sum_i weight_i * term_i"
    weight = Param(1.0, "the terms carry their own weights", valid=Uniform(1.0, 1.0))

    def __init__(self, parts: Mapping[str, Method]):
        self.parts = dict(parts)
        self.weight = 1.0
        self.adapters = nn.ModuleDict({name.replace(".", "_"): part.adapters for name, part in parts.items()})

    def prepare(self, num_samples: int) -> None:
        for part in self.parts.values():
            part.prepare(num_samples)

    def advance(self, progress: float, index: torch.Tensor) -> None:
        for part in self.parts.values():
            part.advance(progress, index)

    def cool(self, share: float | torch.Tensor) -> None:
        for part in self.parts.values():
            part.cool(share)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        total = student.logits.new_zeros((), dtype=torch.float32)
        for part in self.parts.values():
            total = total + part.weight * part.term(student, teacher, labels)
        return total

    def inference_head(self) -> nn.Module | None:
        """Return the only head among the methods, or None.

        Raises:
            MethodError: If several methods have a head.
        """
        heads = {name: head for name, part in self.parts.items() if (head := part.inference_head()) is not None}
        if len(heads) > 1:
            raise MethodError(f"{' and '.join(heads)} both replace the student's classifier; accepted: one of them")
        return next(iter(heads.values()), None)
