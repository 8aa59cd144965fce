"""CIFAR residual networks (He et al. 2016, arXiv:1512.03385, section 4.2); module names match RepDistiller's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from kdsweep.models.blocks.drop_path import DropPath
from kdsweep.models.blocks.initial import kaiming


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, a shortcut added to them, then ReLU.

    The shortcut is a 1x1 convolution with batch norm if the shape changes, otherwise the identity.
    """

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.drop_path = DropPath()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, H, W] to [B, out, H / stride, W / stride]."""
        inner = F.relu(self.bn1(self.conv1(maps)))
        return F.relu(self.drop_path(self.bn2(self.conv2(inner))) + self.downsample(maps))


class CifarResNet(nn.Module):
    """A 3x3 stem and three stages of basic blocks; the second and third stage each halve the resolution.

    Args:
        image_channels: Channels of the input images.
        num_classes: Number of logits.
        blocks: Basic blocks per stage.
        channels: Channels of the stem and of each of the three stages.

    Attributes:
        arguments: The arguments above by name, for the source of an exported student.
    """

    def __init__(self, image_channels: int, num_classes: int, blocks: int, channels: Sequence[int]):
        super().__init__()
        self.arguments = {
            "image_channels": image_channels,
            "num_classes": num_classes,
            "blocks": blocks,
            "channels": tuple(channels),
        }
        stem, *stages = channels
        self.conv1 = nn.Conv2d(image_channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.layer1 = _stage(stem, stages[0], blocks, 1)
        self.layer2 = _stage(stages[0], stages[1], blocks, 2)
        self.layer3 = _stage(stages[1], stages[2], blocks, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(stages[2], num_classes)
        kaiming(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [B, num_classes] for images [B, image_channels, H, W]."""
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        logits: torch.Tensor = self.fc(self.avgpool(maps).flatten(1))
        return logits


def _stage(channels: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(out, out, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(channels, out, stride), *rest)
