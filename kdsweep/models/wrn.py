"""Wide residual networks; parameters are RepDistiller's at width 1.

A block ends in a sum, not an activation: a stage is tapped where the next batch norm and ReLU have passed.
"""

from __future__ import annotations

from kdsweep.lazy import nn
from kdsweep.models.base import ImageShape, need_choice, need_count, register, scaled

_STAGES = ("block2.layer.0.relu1", "block3.layer.0.relu1", "relu")
_HEAD = "fc"


@register(
    "wrn",
    stages=_STAGES,
    head=_HEAD,
    summary="wide residual network; options depth (10, 16, ..., 100) and widen_factor",
)
def wrn(input_shape: ImageShape, num_classes: int, width: float, depth: int = 16, widen_factor: int = 2) -> nn.Module:
    """Three stages of 16, 32 and 64 times `widen_factor` channels after a stem of 16, for images of any size.

    Raises:
        ModelError: If depth is not 6n + 4 within 10..100, or widen_factor is not a whole number above 0.
    """
    from kdsweep.models.blocks import WideResNet

    need_choice("wrn", "depth", depth, range(10, 101, 6))
    need_count("wrn", "widen_factor", widen_factor)
    channels = [scaled(n, width) for n in (16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor)]
    return WideResNet(input_shape[0], num_classes, (depth - 4) // 6, channels)


def _declare(depth: int, widen_factor: int, parameters: str) -> None:
    def build(input_shape: ImageShape, num_classes: int, width: float) -> nn.Module:
        return wrn(input_shape, num_classes, width, depth, widen_factor)

    summary = f"wide residual network; {parameters} parameters with 100 classes"
    register(f"wrn_{depth}_{widen_factor}", stages=_STAGES, head=_HEAD, summary=summary)(build)


_declare(16, 1, "180,916")
_declare(16, 2, "703,284")
_declare(40, 1, "569,780")
_declare(40, 2, "2,255,156")
