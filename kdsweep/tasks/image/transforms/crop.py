"""Shifting."""

from __future__ import annotations

from kdsweep.distributions import Uniform
from kdsweep.lazy import F, torch
from kdsweep.params import Param
from kdsweep.tasks.image.transforms.base import TRANSFORMS, Draws, Transform


@TRANSFORMS.declare
class Crop(Transform):
    """Pads images with black and cuts out a random window of their size."""

    name = "crop"
    padding = Param(0.125, "border, as a fraction of the side; at least one pixel", valid=Uniform(0.0, 0.5))

    def draw(self, draws: Draws) -> torch.Tensor:
        return draws.crop_flip()[1]

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = images.shape
        pad_rows, pad_columns = (max(1, int(side * self.padding)) for side in (height, width))
        device = images.device
        # As fractions of the border, so the draw does not depend on the image size.
        rows = torch.arange(height, device=device) + (drawn[:, :1] * (2 * pad_rows + 1)).long()
        columns = torch.arange(width, device=device) + (drawn[:, 1:] * (2 * pad_columns + 1)).long()
        padded = F.pad(images, (pad_columns, pad_columns, pad_rows, pad_rows))
        sample = torch.arange(batch, device=device)[:, None, None, None]
        channel = torch.arange(channels, device=device)[None, :, None, None]
        return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
