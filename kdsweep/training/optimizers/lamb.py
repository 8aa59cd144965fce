"""LAMB."""

from __future__ import annotations

from kdsweep.distributions import LogUniform, Uniform
from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.training.optimizers.base import OPTIMIZERS, Optimizer, State


@OPTIMIZERS.declare
class Lamb(Optimizer):
    """Adam's direction, scaled for each weight tensor to the tensor's own norm; for large batches.

    You et al. 2020, arXiv:1904.00962, algorithm 2, with Adam's bias correction. A tensor or a direction of norm 0 takes
    Adam's step unscaled.
    """

    name = "lamb"
    weight_decay = Param(0.0, "share of a weight that is added to its direction", valid=Uniform(0.0, 1e3))
    beta1 = Param(0.9, "share of the mean of gradients that a step keeps", valid=Uniform(0.0, 1 - 1e-9))
    beta2 = Param(0.999, "share of the mean of squares that a step keeps", valid=Uniform(0.0, 1 - 1e-9))
    eps = Param(1e-6, "added to the root of the mean of squares", valid=LogUniform(1e-30, 1.0))

    def begin(self, weight: torch.Tensor) -> State:
        """Return the step count (a scalar on the device) and the running means."""
        return {
            "step": torch.zeros((), dtype=torch.float32, device=weight.device),
            "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
        }

    def update(self, weights: list[torch.Tensor], gradients: list[torch.Tensor], states: list[State]) -> None:
        """Update all weights with a few calls for all of them, and a few for each norm."""
        steps, means, squares = ([state[key] for state in states] for key in ("step", "exp_avg", "exp_avg_sq"))
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(means, gradients, 1 - self.beta1)
        torch._foreach_mul_(squares, self.beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.beta2)
        for weight, step, mean, square in zip(weights, steps, means, squares, strict=True):
            count = step.double()  # a float32 power of 0.999 is too coarse to be subtracted from 1
            root = (square / (1 - self.beta2**count)).sqrt() + self.eps
            direction = mean / (1 - self.beta1**count) / root + self.weight_decay * weight
            length, size = direction.norm(), weight.norm()
            trust = torch.where((length > 0) & (size > 0), size / length, 1.0)
            weight -= self.rate * trust * direction
