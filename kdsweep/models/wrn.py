"""Wide residual networks; at width 1, parameter counts match RepDistiller's.

A block ends in a sum without an activation, so each stage is tapped after the batch norm and ReLU that follow it.
"""

from __future__ import annotations

from kdsweep.lazy import nn
from kdsweep.models.base import ImageShape, need_choice, need_count, register, scaled
from kdsweep.models.blueprint import Blueprint

_STAGES = ("block2.layer.0.relu1", "block3.layer.0.relu1", "relu")
_HEAD = "fc"


def _sized(width: float, depth: int, widen_factor: int) -> tuple[int, list[int]]:
    """Number of blocks per stage, and channels of the stem and the three stages."""
    need_choice("wrn", "depth", depth, range(10, 101, 6))
    need_count("wrn", "widen_factor", widen_factor)
    channels = (16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor)
    return (depth - 4) // 6, [scaled(n, width) for n in channels]


def _blueprint(
    input_shape: ImageShape, num_classes: int, width: float, depth: int = 16, widen_factor: int = 2
) -> Blueprint:
    blocks, (stem, *stages) = _sized(width, depth, widen_factor)
    plan = Blueprint(input_shape)
    plan.conv("conv1", stem, 3, padding=1, bias=False)
    for stage, channels in enumerate(stages, 1):
        for block in range(blocks):
            at, stride = f"block{stage}.layer.{block}", 2 if stage > 1 and block == 0 else 1
            _block_blueprint(plan, at, channels, stride)
    plan.norm("bn1")
    plan.keep("relu")
    plan.average()
    plan.linear(_HEAD, num_classes)
    return plan


def _block_blueprint(plan: Blueprint, at: str, channels: int, stride: int) -> None:
    before = plan.shape[0]
    plan.norm(f"{at}.bn1")
    plan.keep(f"{at}.relu1")
    plan.conv(f"{at}.conv1", channels, 3, stride=stride, padding=1, bias=False)
    plan.norm(f"{at}.bn2")
    plan.conv(f"{at}.conv2", channels, 3, padding=1, bias=False)
    if stride != 1 or before != channels:
        plan.weights(f"{at}.convShortcut", (channels, before, 1, 1), bias=False)


@register(
    "wrn",
    stages=_STAGES,
    head=_HEAD,
    summary="wide residual network; options depth (10, 16, ..., 100) and widen_factor",
    blueprint=_blueprint,
)
def wrn(input_shape: ImageShape, num_classes: int, width: float, depth: int = 16, widen_factor: int = 2) -> nn.Module:
    """A stem of 16 channels and stages of 16, 32 and 64 times `widen_factor` channels, for images of any size.

    Raises:
        ModelError: If depth is not 6n + 4 within 10..100, or widen_factor is not a positive integer.
    """
    from kdsweep.models.blocks import WideResNet

    blocks, channels = _sized(width, depth, widen_factor)
    return WideResNet(input_shape[0], num_classes, blocks, channels)


def _declare(depth: int, widen_factor: int, parameters: str) -> None:
    def build(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
        return wrn(input_shape, num_classes, width, depth, widen_factor)

    def blueprint(input_shape: ImageShape, num_classes: int, width: float) -> Blueprint:
        return _blueprint(input_shape, num_classes, width, depth, widen_factor)

    name, summary = f"wrn_{depth}_{widen_factor}", f"wide residual network; {parameters} parameters with 100 classes"
    register(name, stages=_STAGES, head=_HEAD, summary=summary, blueprint=blueprint)(build)


_declare(16, 1, "180,916")
_declare(16, 2, "703,284")
_declare(40, 1, "569,780")
_declare(40, 2, "2,255,156")
