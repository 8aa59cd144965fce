"""A student head that ends in the teacher's classifier."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from kdsweep.methods.adapters.norm import BatchNorm2d
from kdsweep.methods.base import HEADS
from kdsweep.methods.stages import pool


@HEADS.register("transfer")
class TransferHead(nn.Module):
    """Map a student's last stage map to logits: average-pool, transfer, the teacher's frozen classifier.

    Args:
        in_channels: Channels of the student's map.
        out_channels: Channels of the teacher's map.
        height: Height of the transferred map in pixels; larger maps are average-pooled to it.
        width: Width of the transferred map in pixels, likewise.
        pooled: Whether the classifier reads the mean over positions; otherwise it reads the flattened map.
        num_classes: Number of logits.
    """

    def __init__(self, in_channels: int, out_channels: int, height: int, width: int, pooled: bool, num_classes: int):
        super().__init__()
        self.options: dict[str, int | bool | str] = {
            "kind": "transfer",
            "in_channels": in_channels,
            "out_channels": out_channels,
            "height": height,
            "width": width,
            "pooled": pooled,
            "num_classes": num_classes,
        }
        self.size = (height, width)
        self.pooled = pooled
        hidden = max(1, out_channels // 2)
        self.transfer = nn.Sequential(
            OrderedDict(
                reduce=_convolution(in_channels, hidden, 1),
                mix=_convolution(hidden, hidden, 3),
                expand=_convolution(hidden, out_channels, 1),
            )
        )
        self.classifier = nn.Linear(out_channels * (1 if pooled else height * width), num_classes)
        self.classifier.requires_grad_(False)

    def transferred(self, maps: torch.Tensor) -> torch.Tensor:
        """Predict the teacher's map: [B, in_channels, H, W] to [B, out_channels, height, width]."""
        imitation: torch.Tensor = self.transfer(pool(maps, self.size))
        return imitation

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Logits [B, num_classes] from a map [B, in_channels, H, W]."""
        imitation = self.transferred(maps)
        embedding = imitation.mean((2, 3)) if self.pooled else imitation.flatten(1)
        logits: torch.Tensor = self.classifier(embedding)
        return logits


def _convolution(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, BatchNorm2d(out_channels), nn.ReLU())
