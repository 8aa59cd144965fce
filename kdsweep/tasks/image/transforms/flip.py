"""Mirroring."""

from __future__ import annotations

from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.tasks.image.transforms.base import SHARE, TRANSFORMS, Draws, Transform


@TRANSFORMS.declare
class Flip(Transform):
    """Mirrors images left to right."""

    name = "flip"
    probability = Param(0.5, "share of the images that are mirrored", valid=SHARE)

    def draw(self, draws: Draws) -> torch.Tensor:
        return draws.crop_flip()[0]

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return torch.where((drawn < self.probability)[:, :, None, None], images.flip(3), images)
