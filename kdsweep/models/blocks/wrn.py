"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv:1605.07146); module names match RepDistiller's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from kdsweep.models.blocks.drop_path import DropPath
from kdsweep.models.blocks.initial import kaiming


class PreactivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, plus a shortcut; the sum gets no activation.

    The shortcut is a 1x1 convolution of the activated input if the shape changes, otherwise the identity.
    """

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.drop_path = DropPath()
        self.projects = stride != 1 or channels != out
        if self.projects:
            self.convShortcut = nn.Conv2d(channels, out, 1, stride=stride, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, H, W] to [B, out, H / stride, W / stride]."""
        active = self.relu1(self.bn1(maps))
        inner: torch.Tensor = self.drop_path(self.conv2(self.relu2(self.bn2(self.conv1(active)))))
        return inner + (self.convShortcut(active) if self.projects else maps)


class WideResNet(nn.Module):
    """A 3x3 stem, three stages of pre-activation blocks, and a final batch norm with ReLU.

    Args:
        image_channels: Channels of the input images.
        num_classes: Number of logits.
        blocks: Blocks per stage.
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
        self.block1 = _stage(stem, stages[0], blocks, 1)
        self.block2 = _stage(stages[0], stages[1], blocks, 2)
        self.block3 = _stage(stages[1], stages[2], blocks, 2)
        self.bn1 = nn.BatchNorm2d(stages[2])
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(stages[2], num_classes)
        kaiming(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [B, num_classes] for images [B, image_channels, H, W]."""
        maps = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: torch.Tensor = self.fc(self.avgpool(self.relu(self.bn1(maps))).flatten(1))
        return logits


def _stage(channels: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [PreactivationBlock(out, out, 1) for _ in range(blocks - 1)]
    layer = nn.Sequential(PreactivationBlock(channels, out, stride), *rest)
    return nn.Sequential(OrderedDict(layer=layer))
