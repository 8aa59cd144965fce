"""Teachers and students: one file per family, found without editing a list.

A sweep names a model of the registry (`lightnn`), `torchvision/<name>`, `timm/<name>` or the user's own builder
`package.module:function`.
"""

from __future__ import annotations

from typing import Any

from kdsweep.lazy import nn
from kdsweep.models.base import MODELS, ImageShape, ModelEntry, Tapped, Taps, register, scaled

__all__ = ["MODELS", "ImageShape", "ModelEntry", "Tapped", "Taps", "build", "register", "scaled"]


def build(name: str, input_shape: ImageShape, num_classes: int, width: float = 1.0, **options: Any) -> nn.Module:
    """Build a model with fresh weights from the global random state.

    Args:
        name: A registered name, `torchvision/<name>`, `timm/<name>` or `package.module:function`.
        input_shape: (channels, height, width) of one image.
        num_classes: Outputs of the last layer.
        width: Multiplies the channels.
        options: The builder's own keyword arguments.

    Returns:
        A module whose call on [B, C, H, W] returns logits [B, num_classes].

    Raises:
        UnknownNameError: With the nearest valid name.
        ModelError: If the model does not take such images, this width or an option.
    """
    return MODELS[name].build(input_shape, num_classes, width, **options)
