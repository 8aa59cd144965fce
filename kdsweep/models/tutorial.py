"""Teacher and student of PyTorch's knowledge distillation tutorial, with its module names so that its state dicts load.

The tutorial applies ReLU before pooling; here ReLU comes after. The two commute, in value and in gradient, and a ReLU
after the pool processes a quarter of the pixels.
"""

from __future__ import annotations

from collections import OrderedDict

from kdsweep.lazy import nn
from kdsweep.models.base import ImageShape, need_image, register, scaled
from kdsweep.models.blueprint import Blueprint

_TEACHER, _TEACHER_HIDDEN = (128, 64, 64, 32), 512
_LIGHT, _LIGHT_HIDDEN = (16, 16), 256


def _teacher_blueprint(input_shape: ImageShape, num_classes: int, width: float) -> Blueprint:
    need_image("tutorial_teacher", input_shape, 4)
    plan = Blueprint(input_shape)
    for pair, (first, second) in enumerate((_TEACHER[:2], _TEACHER[2:])):
        at = 5 * pair
        plan.conv(f"features.{at}", scaled(first, width), 3, padding=1)
        plan.conv(f"features.{at + 2}", scaled(second, width), 3, padding=1)
        plan.pool(f"features.{at + 3}", 2)
        plan.keep(f"features.{at + 4}")
    return _flat_blueprint(plan, scaled(_TEACHER_HIDDEN, width), num_classes)


def _light_blueprint(input_shape: ImageShape, num_classes: int, width: float) -> Blueprint:
    need_image("lightnn", input_shape, 4)
    plan = Blueprint(input_shape)
    for block, channels in enumerate(_LIGHT):
        plan.conv(f"features.{3 * block}", scaled(channels, width), 3, padding=1)
        plan.pool(f"features.{3 * block + 1}", 2)
        plan.keep(f"features.{3 * block + 2}")
    return _flat_blueprint(plan, scaled(_LIGHT_HIDDEN, width), num_classes)


def _flat_blueprint(plan: Blueprint, hidden: int, num_classes: int) -> Blueprint:
    plan.flatten()
    plan.linear("classifier.0", hidden)
    plan.linear("classifier.3", num_classes)
    return plan


@register(
    "tutorial_teacher",
    stages=("features.4", "features.9"),
    head="classifier.3",
    summary="4 convolutions, 2 dense layers; 1,186,986 parameters at 3x32x32 with 10 classes",
    blueprint=_teacher_blueprint,
)
def tutorial_teacher(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
    """Convolutions of 128, 64, 64 and 32 channels with a pool after every second one, and a hidden layer of 512."""
    need_image("tutorial_teacher", input_shape, 4)
    channels, height, image_width = input_shape
    a, b, c, d, hidden = (scaled(n, width) for n in (*_TEACHER, _TEACHER_HIDDEN))
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
    blueprint=_light_blueprint,
)
def lightnn(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
    """Two convolutions of 16 channels with a pool after each, and a hidden layer of 256."""
    need_image("lightnn", input_shape, 4)
    channels, height, image_width = input_shape
    a, b, hidden = (scaled(n, width) for n in (*_LIGHT, _LIGHT_HIDDEN))
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
