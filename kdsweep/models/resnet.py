"""The CIFAR residual networks of distillation papers; at width 1, parameter counts match RepDistiller's."""

from __future__ import annotations

from kdsweep.lazy import nn
from kdsweep.models.base import ImageShape, need_choice, need_count, register, scaled
from kdsweep.models.blueprint import Blueprint

_STAGES = ("layer1", "layer2", "layer3")
_HEAD = "fc"


def _sized(width: float, depth: int, base_width: int) -> tuple[int, list[int]]:
    """Number of basic blocks per stage, and channels of the stem and the three stages."""
    need_choice("resnet", "depth", depth, range(8, 111, 6))
    need_count("resnet", "base_width", base_width)
    stem = min(base_width, max(16, base_width // 2))
    return (depth - 2) // 6, [scaled(n, width) for n in (stem, base_width, 2 * base_width, 4 * base_width)]


def _blueprint(
    input_shape: ImageShape, num_classes: int, width: float, depth: int = 20, base_width: int = 16
) -> Blueprint:
    blocks, (stem, *stages) = _sized(width, depth, base_width)
    plan = Blueprint(input_shape)
    plan.conv("conv1", stem, 3, padding=1, bias=False)
    plan.norm("bn1")
    for stage, channels in enumerate(stages, 1):
        for block in range(blocks):
            _block_blueprint(plan, f"layer{stage}.{block}", channels, 2 if stage > 1 and block == 0 else 1)
        plan.keep(f"layer{stage}")
    plan.average()
    plan.linear(_HEAD, num_classes)
    return plan


def _block_blueprint(plan: Blueprint, at: str, channels: int, stride: int) -> None:
    before = plan.shape[0]
    plan.conv(f"{at}.conv1", channels, 3, stride=stride, padding=1, bias=False)
    plan.norm(f"{at}.bn1")
    plan.conv(f"{at}.conv2", channels, 3, padding=1, bias=False)
    plan.norm(f"{at}.bn2")
    if stride != 1 or before != channels:
        plan.weights(f"{at}.downsample.0", (channels, before, 1, 1), bias=False)
        plan.norm(f"{at}.downsample.1")


@register(
    "resnet",
    stages=_STAGES,
    head=_HEAD,
    summary="CIFAR residual network; options depth (8, 14, ..., 110) and base_width (of the first stage)",
    blueprint=_blueprint,
)
def resnet(input_shape: ImageShape, num_classes: int, width: float, depth: int = 20, base_width: int = 16) -> nn.Module:
    """Three stages of `base_width`, 2 * `base_width` and 4 * `base_width` channels, for images of any size.

    The stem has `base_width` channels up to a base width of 16, and max(16, `base_width` // 2) above that. This
    matches the 32 stem channels of `resnet8x4` in the literature.

    Raises:
        ModelError: If depth is not 6n + 2 within 8..110, or base_width is not a positive integer.
    """
    from kdsweep.models.blocks import CifarResNet

    blocks, channels = _sized(width, depth, base_width)
    return CifarResNet(input_shape[0], num_classes, blocks, channels)


def _declare(name: str, depth: int, base_width: int, parameters: str) -> None:
    def build(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
        return resnet(input_shape, num_classes, width, depth, base_width)

    def blueprint(input_shape: ImageShape, num_classes: int, width: float) -> Blueprint:
        return _blueprint(input_shape, num_classes, width, depth, base_width)

    summary = f"CIFAR residual network of depth {depth}; {parameters} parameters with 100 classes"
    register(name, stages=_STAGES, head=_HEAD, summary=summary, blueprint=blueprint)(build)


_declare("resnet8", 8, 16, "83,892")
_declare("resnet14", 14, 16, "181,108")
_declare("resnet20", 20, 16, "278,324")
_declare("resnet32", 32, 16, "472,756")
_declare("resnet44", 44, 16, "667,188")
_declare("resnet56", 56, 16, "861,620")
_declare("resnet110", 110, 16, "1,736,564")
_declare("resnet8x4", 8, 64, "1,233,540")
_declare("resnet32x4", 32, 64, "7,433,860")
