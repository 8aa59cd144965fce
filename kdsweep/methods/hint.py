"""FitNets' hint: the student's stage map, through a trained regressor, matches the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdsweep.distributions import Choice, LogUniform, RandInt
from kdsweep.errors import MethodError
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import Method, Outputs, Param, register
from kdsweep.methods.kd import WEIGHT


@register
class Hint(Method):
    """Mean squared error between a regressed student map and the teacher's.

    Adapters: one convolution `kernel_size` x `kernel_size` from the student's channels to the teacher's. Maps of
    different sizes are average-pooled to the smaller one.
    """

    name = "hint"
    formula = "mean (conv(F_s) - F_t)² on one stage"
    source = "Romero et al. 2015, arXiv:1412.6550; PyTorch's tutorial as the regressor run"
    needs = frozenset({"stage:-1"})
    stage = Param(-1, "which stage, counted as Python does", valid=RandInt(-16, 15))
    kernel_size = Param(3, "of the regressor, in pixels", valid=Choice((1, 3, 5, 7)))
    weight = Param(1.0, "scale of the term", LogUniform(0.1, 100), valid=WEIGHT)

    @classmethod
    def teacher_needs(cls, params: Mapping[str, Any]) -> frozenset[str]:
        """The chosen stage map."""
        return frozenset({f"stage:{params.get('stage', cls.stage.default)}"})

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        """The regressor."""
        for who, outputs in (("student", student), ("teacher", teacher)):
            if not -len(outputs.features) <= self.stage < len(outputs.features):
                raise MethodError(f"hint.stage is {self.stage}, but the {who} has {len(outputs.features)} stages")
        channels = [outputs.features[int(self.stage)].shape[1] for outputs in (student, teacher)]
        kernel = int(self.kernel_size)
        return nn.Conv2d(channels[0], channels[1], kernel, padding=kernel // 2)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Mean over batch, channels and positions."""
        regressed = self.adapters(student.features[int(self.stage)]).float()
        target = teacher.features[int(self.stage)].float()
        size = [min(a, b) for a, b in zip(regressed.shape[-2:], target.shape[-2:], strict=True)]
        return F.mse_loss(F.adaptive_avg_pool2d(regressed, size), F.adaptive_avg_pool2d(target, size))
