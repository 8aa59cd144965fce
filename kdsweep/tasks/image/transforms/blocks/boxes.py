"""Random boxes in images."""

from __future__ import annotations

import math
from typing import NamedTuple

from kdsweep.lazy import torch
from kdsweep.tasks.image.transforms.base import ATTEMPTS


class Boxes(NamedTuple):
    """One box per image of a batch, in pixels: int64 [B].

    Attributes:
        top: First row.
        left: First column.
        height: Number of rows.
        width: Number of columns.
        found: Whether there is a box; bool [B].
    """

    top: torch.Tensor
    left: torch.Tensor
    height: torch.Tensor
    width: torch.Tensor
    found: torch.Tensor

    @classmethod
    def drawn(cls, numbers: torch.Tensor, area: tuple[float, float], ratio: float, height: int, width: int) -> Boxes:
        """The first box of `ATTEMPTS` that fits.

        Args:
            numbers: From 0 to 1, [B, 2 ATTEMPTS + 2].
            area: Smallest and largest area, as shares of the image.
            ratio: Largest aspect ratio, width by height; the smallest is its inverse.
            height: Height of the images.
            width: Width of the images.
        """
        low, high = area
        areas = (low + (high - low) * numbers[:, :ATTEMPTS]) * (height * width)
        ratios = (math.log(ratio) * (2 * numbers[:, ATTEMPTS : 2 * ATTEMPTS] - 1)).exp()
        tall, wide = (areas / ratios).sqrt().round().long(), (areas * ratios).sqrt().round().long()
        fits = (tall > 0) & (wide > 0) & (tall <= height) & (wide <= width)
        first = fits & (fits.cumsum(1) == 1)
        tall, wide = (tall * first).sum(1), (wide * first).sum(1)
        at = numbers[:, 2 * ATTEMPTS :]
        top, left = (at[:, 0] * (height - tall + 1)).long(), (at[:, 1] * (width - wide + 1)).long()
        return cls(top, left, tall, wide, fits.any(1))

    def inside(self, height: int, width: int) -> torch.Tensor:
        """Which pixels of images of this size are in the box: bool [B, 1, H, W]."""
        rows = torch.arange(height, device=self.top.device) - self.top[:, None]
        columns = torch.arange(width, device=self.top.device) - self.left[:, None]
        in_rows = (rows >= 0) & (rows < self.height[:, None])
        in_columns = (columns >= 0) & (columns < self.width[:, None])
        return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
