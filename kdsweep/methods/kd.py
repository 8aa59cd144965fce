"""Soft targets (Hinton et al.)."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import F, torch
from kdsweep.methods.base import Method, Outputs, Temperature, register


def soft_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
    """T² KL(teacher ‖ student) of softened class probabilities.

    Args:
        student: Logits [B, C].
        teacher: Logits [B, C].
        temperature: T, above 0; a scalar.

    Returns:
        A float32 scalar, summed over classes and averaged over the batch.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    return divergence(log_student, log_teacher) * temperature**2


def divergence(log_student: torch.Tensor, log_teacher: torch.Tensor) -> torch.Tensor:
    """KL(teacher ‖ student) of log-probabilities [B, C]: summed over classes, mean over the batch.

    Written out, because `torch.vmap` has no rule for `F.kl_div`, which computes the same.
    """
    return (log_teacher.exp() * (log_teacher - log_student)).sum() / len(log_student)


@register
class KD(Method):
    """Soft targets: match the teacher's softened class probabilities."""

    name = "kd"
    formula = "T² KL(softmax(z_t / T) ‖ softmax(z_s / T)), summed over classes, mean over the batch"
    source = "Hinton, Vinyals, Dean 2015, arXiv:1503.02531"
    stacks = frozenset({"temperature"})
    temperature = Temperature(4.0, LogUniform(1, 16))

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        return soft_kl(student.logits, teacher.logits, self.temperature)
