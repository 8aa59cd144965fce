"""Cutting out and enlarging."""

from __future__ import annotations

from kdsweep.distributions import Uniform
from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.tasks.image.transforms.base import ATTEMPTS, TRANSFORMS, Draws, Transform
from kdsweep.tasks.image.transforms.blocks.boxes import Boxes


@TRANSFORMS.declare
class RandomResizedCrop(Transform):
    """Cuts out a random box and enlarges it to the image's size, bilinearly (Szegedy et al. 2015, arXiv:1409.4842).

    A box that does not fit is drawn again, up to ten times; then the whole image is taken.
    """

    name = "random_resized_crop"
    scale = Param(
        0.08, "smallest area of the box, as a share of the image; the largest is 1", valid=Uniform(0.001, 1.0)
    )
    ratio = Param(4 / 3, "largest aspect ratio of the box; the smallest is its inverse", valid=Uniform(1.0, 10.0))

    def draw(self, draws: Draws) -> torch.Tensor:
        return draws.uniform(2 * ATTEMPTS + 2)

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        boxes = Boxes.drawn(drawn, (self.scale, 1.0), self.ratio, height, width)
        whole = ~boxes.found
        rows = torch.where(whole, 0, boxes.top), torch.where(whole, height, boxes.height)
        columns = torch.where(whole, 0, boxes.left), torch.where(whole, width, boxes.width)
        stretched = _stretched(_stretched(images.float(), *rows, dim=2), *columns, dim=3)
        return stretched.round().to(torch.uint8)


def _stretched(images: torch.Tensor, start: torch.Tensor, length: torch.Tensor, dim: int) -> torch.Tensor:
    """Enlarge the pixels from `start` [B] on, `length` [B] of them, to the whole side, by linear interpolation."""
    side = images.shape[dim]
    last = (length - 1)[:, None].float()
    centres = torch.arange(side, device=images.device) + 0.5
    at = (centres * (length[:, None] / side) - 0.5).clamp(min=0).minimum(last)
    low = at.floor()
    high = (low + 1).minimum(last)
    shape = [len(images), 1, 1, 1]
    shape[dim] = side
    first, second = (
        images.gather(dim, (start[:, None] + part.long()).reshape(shape).expand_as(images)) for part in (low, high)
    )
    return torch.lerp(first, second, (at - low).reshape(shape))
