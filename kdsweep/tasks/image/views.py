"""Keyed augmentation: how every training image looks in one epoch."""

from __future__ import annotations

from kdsweep.lazy import F, torch
from kdsweep.seeds import derived_seed


class View:
    """How every training image looks in one epoch: which are mirrored and how far each is shifted.

    Drawn on the CPU from (seed, epoch) alone, so that every trial sees the same view of a sample in an epoch and the
    teacher's outputs for it can be computed once.

    Args:
        augment: `none`, `flip` or `crop_flip`.
        seed: Of the sweep.
        epoch: From 1.
        count: Training images.
        device: Where the images are.
    """

    def __init__(self, augment: str, seed: int, epoch: int, count: int, device: torch.device):
        generator = torch.Generator().manual_seed(derived_seed(seed, "view", epoch))
        self.changes = augment != "none"
        self.shifts = augment == "crop_flip"
        self._mirrored = (torch.rand(count, generator=generator) < 0.5).to(device)
        # As shares of the border, so that one draw serves any image size.
        self._shift = torch.rand(count, 2, generator=generator).to(device)

    def apply(self, images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Vary images [B, C, H, W] of uint8 that stand at `index` [B] of the training split."""
        if not self.changes:
            return images
        batch, channels, height, width = images.shape
        device = images.device
        rows = torch.arange(height, device=device).expand(batch, height)
        columns = torch.arange(width, device=device).expand(batch, width)
        columns = torch.where(self._mirrored[index, None], width - 1 - columns, columns)
        if self.shifts:
            borders = torch.tensor([max(1, height // 8), max(1, width // 8)], device=device)
            shift = (self._shift[index] * (2 * borders + 1)).long()
            rows, columns = rows + shift[:, :1], columns + shift[:, 1:]
            pad_rows, pad_columns = max(1, height // 8), max(1, width // 8)
            images = F.pad(images, (pad_columns, pad_columns, pad_rows, pad_rows))
        sample = torch.arange(batch, device=device)[:, None, None, None]
        channel = torch.arange(channels, device=device)[None, :, None, None]
        return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
