"""Batch normalisation that survives the last batch of an epoch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, but one value per channel, of which there is no variance, is not refused."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalise [B, C, H, W]; with the running statistics where B, H and W are 1."""
        if self.training and maps.numel() == maps.shape[1]:
            return F.batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(maps)
