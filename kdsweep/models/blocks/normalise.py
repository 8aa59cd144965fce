"""Normalisation as a layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from kdsweep.errors import DataError


class Normalise(nn.Module):
    """(images - mean) / std per channel, for images [B, C, H, W] in 0..1; uint8 images are divided by 255 first."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images [B, C, H, W].

        Raises:
            DataError: If they are neither floating point nor uint8.
        """
        return normalise(images, self.mean, self.std)


def normalise(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """(images - mean) / std for images [B, C, H, W] and statistics [C, 1, 1]; uint8 images are divided by 255 first."""
    if images.dtype == torch.uint8:
        images = images / 255
    elif not images.is_floating_point():
        found = str(images.dtype).removeprefix("torch.")
        raise DataError(f"found images of type {found}; accepted: floating point in 0..1, or uint8")
    return (images - mean) / std
