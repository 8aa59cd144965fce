"""Decoupled knowledge distillation."""

from __future__ import annotations

from kdsweep.distributions import Uniform
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import FRACTION, WEIGHT, Method, Outputs, Param, Temperature, register
from kdsweep.methods.kd import divergence


def ramp(progress: float, fraction: float) -> float:
    """Warm-up factor: linear from 0 to 1 over the first `fraction` of training."""
    return 1.0 if progress >= fraction else progress / fraction


def ramp_buffer(module: nn.Module) -> nn.Module:
    """Register the warm-up factor as the buffer `ramp`, initially 1; a compiled step can read it on the device."""
    module.register_buffer("ramp", torch.ones(()))
    return module


def non_target(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-softmax over the C - 1 classes other than the label.

    Args:
        logits: [B, C], already divided by the temperature.
        labels: [B].

    Returns:
        The log-probabilities [B, C], with a placeholder 0 at the label, and the logsumexp [B, 1] of the other
        logits.
    """
    target = labels[:, None] == torch.arange(logits.shape[1], device=logits.device)
    others = logits.masked_fill(target, -torch.inf)
    total = others.logsumexp(dim=1, keepdim=True)
    return (logits - total).masked_fill(target, 0.0), total


@register
class DecoupledKD(Method):
    """Decoupled soft targets: separate weights for the target class and for the other classes.

    Buffers: the warm-up factor. The label of an image mixed by MixUp or CutMix is the class with the larger share; the
    paper does not mix images.
    """

    name = "dkd"
    formula = "T² [target_weight KL(b_t ‖ b_s) + beta KL(n_t ‖ n_s)], b = (p_y, 1 - p_y), n over the other classes"
    source = "Zhao et al. 2022, arXiv:2203.08679"
    reads_labels = True
    stacks = frozenset({"temperature", "beta", "target_weight"})
    temperature = Temperature(4.0)
    beta = Param(8.0, "weight of the non-target part", Uniform(0.5, 10), valid=WEIGHT)
    target_weight = Param(1.0, "weight of the target part", valid=WEIGHT)
    warmup_fraction = Param(0.08, "fraction of training over which the term ramps up from 0", valid=FRACTION)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        return ramp_buffer(nn.Module())

    def advance(self, progress: float, index: torch.Tensor) -> None:
        self.adapters.get_buffer("ramp").fill_(ramp(progress, self.warmup_fraction))

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the batch, times the warm-up factor."""
        ours, theirs = (z.logits.float() / self.temperature for z in (student, teacher))
        (rest_s, total_s), (rest_t, total_t) = (non_target(z, labels) for z in (ours, theirs))
        binary_s, binary_t = _binary(ours, total_s, labels), _binary(theirs, total_t, labels)
        target = divergence(binary_s, binary_t)
        # The label's entry is 0 in both, so it contributes e^0 (0 - 0) = 0.
        rest = divergence(rest_s, rest_t)
        term = self.temperature**2 * (self.target_weight * target + self.beta * rest)
        return term * self.adapters.get_buffer("ramp")


def _binary(logits: torch.Tensor, rest: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log of (p_y, 1 - p_y), [B, 2]."""
    target = logits.gather(1, labels[:, None])
    return F.log_softmax(torch.cat([target, rest], dim=1), dim=1)
