"""Teacher-free knowledge distillation."""

from __future__ import annotations

import math

from kdsweep.distributions import LogUniform, Uniform
from kdsweep.lazy import torch
from kdsweep.methods.base import Method, Outputs, Param, Temperature, register
from kdsweep.methods.kd import soft_kl


@register
class TeacherFree(Method):
    """Soft targets of a virtual teacher that gives the label a fixed probability; no teacher network is used.

    The virtual teacher's logits are its log-probabilities, so the temperature softens it like a network. The
    label of an image mixed by MixUp or CutMix is the class with the larger share; the paper does not mix images.
    """

    name = "tfkd"
    formula = "T² KL(softmax(log q / T) ‖ softmax(z_s / T)), q_y = target_probability, the rest even"
    source = "Yuan et al. 2020, arXiv:1909.11723"
    needs = frozenset()
    reads_labels = True
    stacks = frozenset({"temperature"})
    temperature = Temperature(20.0, LogUniform(4, 40))
    target_probability = Param(0.9, "probability of the label, before softening", valid=Uniform(1e-6, 1 - 1e-6))

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        logits = student.logits.float()
        rest = math.log((1 - self.target_probability) / max(1, logits.shape[1] - 1))
        made = torch.full_like(logits, rest).scatter(1, labels[:, None], math.log(self.target_probability))
        return soft_kl(logits, made, self.temperature)
