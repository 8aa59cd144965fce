"""RandAugment."""

from __future__ import annotations

from kdsweep.distributions import RandInt
from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.tasks.image.transforms.base import TRANSFORMS, Draws, Transform
from kdsweep.tasks.image.transforms.blocks.menu import BINS, OPERATIONS, RAND, levels, operated


@TRANSFORMS.declare
class RandAugment(Transform):
    """Random operations from a menu of 14, at one magnitude (Cubuk et al. 2020, arXiv:1909.13719).

    The menu is torchvision's: shears, translations, rotation, brightness, colour, contrast, sharpness, posterize,
    solarize, autocontrast, equalize and no change.
    """

    name = "rand_augment"
    operations = Param(2, "operations that are applied to each image, one after the other", valid=RandInt(1, 10))
    magnitude = Param(9, f"strength of the operations, 0 to {BINS - 1}", valid=RandInt(0, BINS - 1))

    def draw(self, draws: Draws) -> torch.Tensor:
        numbers = draws.uniform(20)[:, : 2 * int(self.operations)].unflatten(1, (-1, 2))
        operation = (numbers[:, :, 0] * len(OPERATIONS)).long()
        bins = torch.full_like(operation, int(self.magnitude))
        return torch.stack([operation, levels(RAND, operation, bins, numbers[:, :, 1] <= 0.5)], dim=2).flatten(1)

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        columns = drawn.unbind(1)
        for operation, level in zip(columns[0::2], columns[1::2], strict=True):
            images = operated(images, operation, level, relative=True)
        return images
