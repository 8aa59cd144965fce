"""The student of a published DenseNet-121 distillation notebook: 3 convolutions and a 250/50 dense head.

ReLU comes after each pool instead of before it; this is faster and gives the same result (see tutorial.py).
"""

from __future__ import annotations

from collections import OrderedDict

from kdsweep.lazy import nn
from kdsweep.models.base import ImageShape, need_image, register, scaled
from kdsweep.models.blueprint import Blueprint

_CHANNELS, _HIDDEN = (16, 32, 64), (250, 50)


def _blueprint(input_shape: ImageShape, num_classes: int, width: float) -> Blueprint:
    need_image("convnet3", input_shape, 37)
    plan = Blueprint(input_shape)
    for block, (channels, kernel, stride) in enumerate(zip(_CHANNELS, (5, 5, 3), (2, 2, 1), strict=True)):
        plan.conv(f"features.{3 * block}", scaled(channels, width), kernel, stride=stride, padding=1)
        plan.pool(f"features.{3 * block + 1}", 2)
        plan.keep(f"features.{3 * block + 2}")
    plan.flatten()
    for layer, outputs in enumerate((*(scaled(n, width) for n in _HIDDEN), num_classes)):
        plan.linear(f"classifier.{2 * layer}", outputs)
    return plan


@register(
    "convnet3",
    stages=("features.2", "features.5", "features.8"),
    head="classifier.4",
    summary="3 convolutions, 3 dense layers; 189,854 parameters at 3x128x128 with 10 classes",
    blueprint=_blueprint,
)
def convnet3(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
    """Convolutions of 16, 32 and 64 channels, each followed by a pool and ReLU, and hidden layers of 250 and 50."""
    need_image("convnet3", input_shape, 37)
    channels, height, image_width = input_shape
    a, b, c, wide, narrow = (scaled(n, width) for n in (*_CHANNELS, *_HIDDEN))
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
    """Size of the last map along one axis of `size` pixels."""
    for _ in range(2):
        size = ((size - 3) // 2 + 1) // 2
    return size // 2
