"""TrivialAugment."""

from __future__ import annotations

from kdsweep.lazy import torch
from kdsweep.tasks.image.transforms.base import TRANSFORMS, Draws, Transform
from kdsweep.tasks.image.transforms.blocks.menu import BINS, OPERATIONS, TRIVIAL, levels, operated


@TRANSFORMS.declare
class TrivialAugment(Transform):
    """One random operation at a random magnitude: TrivialAugment Wide (Müller and Hutter 2021, arXiv:2103.10158).

    The menu is that of `rand_augment`, with torchvision's wider magnitudes.
    """

    name = "trivial_augment"

    def draw(self, draws: Draws) -> torch.Tensor:
        which, how_far, sign = draws.uniform(3).unbind(1)
        operation = (which * len(OPERATIONS)).long()
        return torch.stack([operation, levels(TRIVIAL, operation, (how_far * BINS).long(), sign <= 0.5)], dim=1)

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return operated(images, drawn[:, 0], drawn[:, 1], relative=False)
