"""MixUp."""

from __future__ import annotations

from kdsweep.distributions import LogUniform, Uniform
from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.tasks.image.transforms.base import SHARE, TRANSFORMS, Draws, Mixer


@TRANSFORMS.declare
class MixUp(Mixer):
    """Blends each image with another one, and their labels alike (Zhang et al. 2018, arXiv:1710.09412).

    The proportion is drawn from Beta(alpha, alpha) for each image.
    """

    name = "mixup"
    alpha = Param(
        1.0, "of the Beta distribution: small values blend little", LogUniform(0.1, 2), valid=Uniform(0.01, 100)
    )
    probability = Param(1.0, "share of the images that are blended", valid=SHARE)

    def draw(self, draws: Draws) -> torch.Tensor:
        return draws.beta(self.alpha)

    def share(self, drawn: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return drawn[:, 0]

    def mask(self, drawn: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return drawn[:, :, None, None]

    def chance(self) -> float:
        return self.probability
