"""Adam, the base of its variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from kdsweep.distributions import LogUniform, Uniform
from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.training.optimizers.base import OPTIMIZERS, Optimizer, Stacks, State


@OPTIMIZERS.declare
class Adam(Optimizer):
    """Adaptive steps from running means of the gradient and its square; weight decay is added to the gradient.

    Kingma, Ba 2015, arXiv:1412.6980.
    """

    name = "adam"
    stacks: ClassVar[Stacks] = "gradient"
    amsgrad = False
    weight_decay = Param(0.0, "share of a weight that is added to its gradient", valid=Uniform(0.0, 1e3))
    beta1 = Param(0.9, "share of the mean of gradients that a step keeps", valid=Uniform(0.0, 1 - 1e-9))
    beta2 = Param(0.999, "share of the mean of squares that a step keeps", valid=Uniform(0.0, 1 - 1e-9))
    eps = Param(1e-8, "added to the root of the mean of squares", valid=LogUniform(1e-30, 1.0))

    def begin(self, weight: torch.Tensor) -> State:
        """Return the step count (a scalar on the device) and the running means."""
        names = ("exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * self.amsgrad)
        return {
            "step": torch.zeros((), dtype=torch.float32, device=weight.device),
            **{name: torch.zeros_like(weight, memory_format=torch.preserve_format) for name in names},
        }

    def update(self, weights: list[torch.Tensor], gradients: list[torch.Tensor], states: list[State]) -> None:
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        self.kernel()(
            weights,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if self.amsgrad else [],
            steps,
            lr=self.rate,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=self.amsgrad,
            maximize=False,
        )

    @staticmethod
    def kernel() -> Callable[..., None]:
        """Return PyTorch's fused kernel, which updates all weights in one call."""
        return torch._fused_adam_
