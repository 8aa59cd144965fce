"""Muon."""

from __future__ import annotations

from math import sqrt

from kdsweep.distributions import Uniform
from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.training.optimizers.adamw import AdamW
from kdsweep.training.optimizers.base import OPTIMIZERS, State

# Coefficients of the quintic iteration, number of iterations and smallest norm, as in torch.optim.Muon.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SMALLEST = 1e-7


@OPTIMIZERS.declare
class Muon(AdamW):
    """Orthogonalised Nesterov momentum for matrices and convolution kernels; AdamW for all other weights.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; steps have the size of AdamW's, so that both share a
    learning rate: Liu et al. 2025, arXiv:2502.16982, section 2.2. For matrices it does what torch.optim.Muon does with
    `match_rms_adamw`, which refuses all other weights. Here a kernel [out, in, h, w] is the matrix [out, in * h * w],
    and weights of fewer than two dimensions (biases, norms) follow AdamW. The first and the last layer follow Muon too,
    and the momentum is always Nesterov's.
    """

    name = "muon"
    momentum = Param(0.9, "share of the mean of gradients that a matrix's step keeps", valid=Uniform(0.0, 1 - 1e-9))

    def begin(self, weight: torch.Tensor) -> State:
        """Return the running mean of a matrix's gradients, or AdamW's state."""
        if weight.ndim < 2:
            return super().begin(weight)
        return {"momentum_buffer": torch.zeros_like(weight, memory_format=torch.preserve_format)}

    def update(self, weights: list[torch.Tensor], gradients: list[torch.Tensor], states: list[State]) -> None:
        """Update matrices one by one, and all other weights in one call."""
        everything = list(zip(weights, gradients, states, strict=True))
        for weight, gradient, state in everything:
            if weight.ndim >= 2:
                self._update_matrix(weight, gradient, state["momentum_buffer"])
        others = [one for one in everything if one[0].ndim < 2]
        if others:
            super().update([w for w, _, _ in others], [g for _, g, _ in others], [s for _, _, s in others])

    def _update_matrix(self, weight: torch.Tensor, gradient: torch.Tensor, mean: torch.Tensor) -> None:
        mean.lerp_(gradient, 1 - self.momentum)
        direction = orthogonalised(gradient.lerp(mean, self.momentum).flatten(1)).reshape(weight.shape).to(weight.dtype)
        rows = weight.shape[0]
        size = 0.2 * sqrt(max(rows, weight.numel() // rows))
        weight *= 1 - self.rate * self.weight_decay
        weight -= direction * (self.rate * size)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Return about U V^T for a matrix U S V^T [rows, columns], in bfloat16: singular values between 0.5 and 1.5."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(torch.bfloat16)
    x = x.T if tall else x
    x = x / x.norm().clamp(min=SMALLEST)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
