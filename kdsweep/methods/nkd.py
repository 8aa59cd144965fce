"""Normalised knowledge distillation."""

from __future__ import annotations

from kdsweep.distributions import LogUniform, Uniform
from kdsweep.lazy import torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Temperature, register
from kdsweep.methods.dkd import non_target


@register
class NormalisedKD(Method):
    """Cross-entropy on the target class, plus softened cross-entropy among the other, renormalised classes.

    Both parts are cross-entropies, so the term is above 0 even if student and teacher agree. The label of an image
    mixed by MixUp or CutMix is the class with the larger share, as in the authors' code.
    """

    name = "nkd"
    formula = "-p_t^y log p_s^y - gamma T² sum over i ≠ y of n_t log n_s, n = softmax(z / T) over C - 1 classes"
    source = "Yang et al. 2023, arXiv:2303.13005"
    reads_labels = True
    stacks = frozenset({"temperature", "gamma"})
    temperature = Temperature(1.0, LogUniform(1, 4), "softens the non-target part")
    gamma = Param(1.5, "weight of the non-target part", Uniform(0.5, 4), valid=WEIGHT)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        ours, theirs = student.logits.float(), teacher.logits.float()
        label = labels[:, None]
        target = theirs.softmax(dim=1).gather(1, label) * ours.log_softmax(dim=1).gather(1, label)
        (rest_s, _), (rest_t, _) = (non_target(z / self.temperature, labels) for z in (ours, theirs))
        # The label's entry is 0 in both, so it contributes e^0 * 0 = 0.
        rest = (rest_t.exp() * rest_s).sum(dim=1)
        return -target.mean() - self.gamma * self.temperature**2 * rest.mean()
