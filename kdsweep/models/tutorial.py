"""The pair of PyTorch's knowledge distillation tutorial; its module names, so that its state dicts load.

The tutorial pools after a ReLU. The two commute, in value and in gradient, and a ReLU after the pool has a quarter of
the pixels.
"""

from __future__ import annotations

from collections import OrderedDict

from kdsweep.lazy import nn
from kdsweep.models.base import ImageShape, need_image, register, scaled


@register(
    "tutorial_teacher",
    stages=("features.4", "features.9"),
    head="classifier.3",
    summary="4 convolutions, 2 dense layers; 1,186,986 parameters at 3x32x32 with 10 classes",
)
def tutorial_teacher(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
    """Convolutions of 128, 64, 64, 32 channels, a pool after each pair, and a hidden layer of 512."""
    need_image("tutorial_teacher", input_shape, 4)
    channels, height, image_width = input_shape
    a, b, c, d, hidden = (scaled(n, width) for n in (128, 64, 64, 32, 512))
    features = nn.Sequential(
        nn.Conv2d(channels, a, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(a, b, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(b, c, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c, d, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
    )
    return _flat(features, d * (height // 4) * (image_width // 4), hidden, num_classes)


@register(
    "lightnn",
    stages=("features.2", "features.5"),
    head="classifier.3",
    summary="2 convolutions, 2 dense layers; 267,738 parameters at 3x32x32 with 10 classes",
)
def lightnn(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
    """Convolutions of 16 and 16 channels, a pool after each, and a hidden layer of 256."""
    need_image("lightnn", input_shape, 4)
    channels, height, image_width = input_shape
    a, b, hidden = (scaled(n, width) for n in (16, 16, 256))
    features = nn.Sequential(
        nn.Conv2d(channels, a, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(a, b, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
    )
    return _flat(features, b * (height // 4) * (image_width // 4), hidden, num_classes)


def _flat(features: nn.Sequential, flat: int, hidden: int, num_classes: int) -> nn.Module:
    classifier = nn.Sequential(nn.Linear(flat, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, num_classes))
    parts = OrderedDict(features=features, flatten=nn.Flatten(), classifier=classifier)
    return nn.Sequential(parts)
