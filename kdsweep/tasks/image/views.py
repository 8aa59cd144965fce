"""Image augmentation that depends only on the seed and the epoch."""

from __future__ import annotations

from kdsweep.lazy import F, torch
from kdsweep.seeds import derived_seed


class View:
    """The augmentation of every training image in one epoch: which images are mirrored, and how far each is shifted.

    It is drawn on the CPU and depends only on (seed, epoch). Every trial therefore sees the same view of a sample in a
    given epoch, and the teacher's outputs for it are computed only once.

    Args:
        augment: `none`, `flip` or `crop_flip`.
        seed: Seed of the sweep.
        epoch: Epoch, counted from 1.
        count: Number of training images.
        device: Device of the images.
    """

    def __init__(self, augment: str, seed: int, epoch: int, count: int, device: torch.device):
        generator = torch.Generator().manual_seed(derived_seed(seed, "view", epoch))
        self.changes = augment != "none"
        self.shifts = augment == "crop_flip"
        self._mirrored = (torch.rand(count, generator=generator) < 0.5).to(device)
        # As fractions of the border, so the draw does not depend on the image size.
        self._shift = torch.rand(count, 2, generator=generator).to(device)

    def apply(self, images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Augment uint8 images [B, C, H, W], which are at positions `index` [B] of the training split."""
        if not self.changes:
            return images
        batch, channels, height, width = images.shape
        device = images.device
        rows = torch.arange(height, device=device).expand(batch, height)
        columns = torch.arange(width, device=device).expand(batch, width)
        columns = torch.where(self._mirrored[index, None], width - 1 - columns, columns)
        if self.shifts:
            pad_rows, pad_columns = max(1, height // 8), max(1, width // 8)
            shift = self._shift[index]
            rows = rows + (shift[:, :1] * (2 * pad_rows + 1)).long()
            columns = columns + (shift[:, 1:] * (2 * pad_columns + 1)).long()
            images = F.pad(images, (pad_columns, pad_columns, pad_rows, pad_rows))
        sample = torch.arange(batch, device=device)[:, None, None, None]
        channel = torch.arange(channels, device=device)[None, :, None, None]
        return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
