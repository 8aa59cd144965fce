"""Teacher and student of the Keras distillation example (keras.io/examples/vision/knowledge_distillation).

Convolutions and the pool use TensorFlow's 'same' padding, which puts the extra pixel of an odd total at the end.
PyTorch's `padding` argument cannot express that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from kdsweep.lazy import nn
from kdsweep.models.base import ImageShape, register, scaled
from kdsweep.models.blueprint import Blueprint

_STAGES = ("pool", "conv2")
_HEAD = "fc"


def _blueprint(first: int, second: int) -> Callable[[ImageShape, int, float], Blueprint]:
    def draw(input_shape: ImageShape, num_classes: int, width: float) -> Blueprint:
        plan = Blueprint(input_shape)
        _padded(plan, 3, 2)
        plan.conv("conv1", scaled(first, width), 3, stride=2)
        _padded(plan, 2, 1)
        plan.pool("pool", 2, stride=1)
        _padded(plan, 3, 2)
        plan.conv("conv2", scaled(second, width), 3, stride=2)
        plan.flatten()
        plan.linear(_HEAD, num_classes)
        return plan

    return draw


def _padded(plan: Blueprint, kernel: int, stride: int) -> None:
    height, width = (sum(same_padding(size, kernel, stride)) for size in plan.shape[1:])
    plan.pad(height, width)


@register(
    "mnist_teacher",
    stages=_STAGES,
    head=_HEAD,
    summary="2 strided convolutions, 256 and 512 channels; 1,433,610 parameters at 1x28x28 with 10 classes",
    blueprint=_blueprint(256, 512),
)
def mnist_teacher(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
    """Convolutions of 256 and 512 channels."""
    return _lesson(input_shape, num_classes, scaled(256, width), scaled(512, width))


@register(
    "mnist_student",
    stages=_STAGES,
    head=_HEAD,
    summary="2 strided convolutions, 16 and 32 channels; 20,490 parameters at 1x28x28 with 10 classes",
    blueprint=_blueprint(16, 32),
)
def mnist_student(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
    """Convolutions of 16 and 32 channels."""
    return _lesson(input_shape, num_classes, scaled(16, width), scaled(32, width))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's 'same' padding for an axis of `size` pixels: (before, after).

    The output has ceil(size / stride) pixels (tensorflow.org/api_docs/python/tf/nn, "Notes on padding").
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _lesson(input_shape: ImageShape, num_classes: int, first: int, second: int) -> nn.Module:
    channels, *size = input_shape
    halved = [-(-n // 2) for n in size]
    flat = second * (-(-halved[0] // 2)) * (-(-halved[1] // 2))
    return nn.Sequential(
        OrderedDict(
            pad1=nn.ZeroPad2d(_sides(size, 3, 2)),
            conv1=nn.Conv2d(channels, first, 3, stride=2),
            relu=nn.LeakyReLU(0.2),
            pad_pool=nn.ConstantPad2d(_sides(halved, 2, 1), float("-inf")),
            pool=nn.MaxPool2d(2, stride=1),
            pad2=nn.ZeroPad2d(_sides(halved, 3, 2)),
            conv2=nn.Conv2d(first, second, 3, stride=2),
            flatten=nn.Flatten(),
            fc=nn.Linear(flat, num_classes),
        )
    )


def _sides(size: list[int], kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Padding in PyTorch's order: left, right, top, bottom."""
    top, bottom = same_padding(size[0], kernel, stride)
    left, right = same_padding(size[1], kernel, stride)
    return left, right, top, bottom
