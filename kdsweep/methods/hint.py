"""FitNets hints: regress the teacher's feature map from the student's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdsweep.distributions import Choice, LogUniform, RandInt
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Shapes, register
from kdsweep.methods.stages import bridge, filled, need_alike, stage


@register
class Hint(Method):
    """Mean squared error between the teacher's stage map and a regression from the student's.

    Adapters: one `kernel_size` x `kernel_size` convolution from the student's channels to the teacher's. The larger
    map is average-pooled. For texts: a convolution over `kernel_size` tokens, and the mean over tokens without padding.
    """

    name = "hint"
    formula = "mean (conv(F_s) - F_t)² on one stage"
    source = "Romero et al. 2015, arXiv:1412.6550; PyTorch's tutorial as the regressor run"
    needs = frozenset({"stage:-1"})
    stacks = frozenset()
    stage = Param(-1, "stage index; negative counts from the last", valid=RandInt(-16, 15))
    kernel_size = Param(3, "kernel size of the regressor, in pixels", valid=Choice((1, 3, 5, 7)))
    weight = Param(1.0, "scale of the term", LogUniform(0.1, 100), valid=WEIGHT)

    @classmethod
    def teacher_needs(cls, params: Mapping[str, Any]) -> frozenset[str]:
        return frozenset({f"stage:{params.get('stage', cls.stage.default)}"})

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """Both models have a map, or both hidden states, at the chosen stage."""
        ours = stage(student.features, int(self.stage), self.name, "student", states=True)
        theirs = stage(teacher.features, int(self.stage), self.name, "teacher", states=True)
        need_alike(ours, theirs, self.name)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        index, kernel = int(self.stage), int(self.kernel_size)
        ours, theirs = student.features[index], teacher.features[index]
        if ours.ndim == 3:
            return nn.Conv1d(ours.shape[2], theirs.shape[2], kernel, padding=kernel // 2)
        return nn.Conv2d(ours.shape[1], theirs.shape[1], kernel, padding=kernel // 2)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        index = int(self.stage)
        ours, theirs = student.features[index].float(), teacher.features[index].float()
        if ours.ndim == 3:
            counted = filled(theirs)
            errors = (self.adapters(ours.transpose(1, 2)).transpose(1, 2) - theirs).square() * counted
            mean: torch.Tensor = errors.sum() / (counted.sum() * theirs.shape[2])
            return mean
        regressed = self.adapters(ours)
        return F.mse_loss(*bridge(regressed, theirs))
