"""Batch normalisation that accepts a single value per channel."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that does not raise in training on one value per channel, as in a last batch of 1."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalise [B, C, H, W]; uses the running statistics if B, H and W are 1."""
        if self.training and maps.numel() == maps.shape[1]:
            return F.batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(maps)
