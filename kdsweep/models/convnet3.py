"""The student of a published DenseNet-121 distillation notebook: 3 convolutions and a 250/50 dense head.

Its pools stand before its ReLUs, which changes nothing but the time: see tutorial.py.
"""

from __future__ import annotations

from collections import OrderedDict

from kdsweep.lazy import nn
from kdsweep.models.base import ImageShape, need_image, register, scaled


@register(
    "convnet3",
    stages=("features.2", "features.5", "features.8"),
    head="classifier.4",
    summary="3 convolutions, 3 dense layers; 189,854 parameters at 3x128x128 with 10 classes",
)
def convnet3(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
    """Convolutions of 16, 32, 64 channels, each with a pool and ReLU, and hidden layers of 250 and 50."""
    need_image("convnet3", input_shape, 37)
    channels, height, image_width = input_shape
    a, b, c, wide, narrow = (scaled(n, width) for n in (16, 32, 64, 250, 50))
    features = nn.Sequential(
        nn.Conv2d(channels, a, 5, stride=2, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(a, b, 5, stride=2, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(b, c, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
    )
    classifier = nn.Sequential(
        nn.Linear(c * _last(height) * _last(image_width), wide),
        nn.ReLU(),
        nn.Linear(wide, narrow),
        nn.ReLU(),
        nn.Linear(narrow, num_classes),
    )
    return nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), classifier=classifier))


def _last(size: int) -> int:
    """Pixels that are left of `size` along one axis."""
    for _ in range(2):
        size = ((size - 3) // 2 + 1) // 2
    return size // 2
