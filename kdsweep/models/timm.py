"""timm's models; needs the `timm` extra."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from kdsweep.errors import ModelError, UnknownNameError, installing
from kdsweep.lazy import import_torchvision, nn
from kdsweep.models.base import ImageShape
from kdsweep.models.foreign import explained


def need_installed(name: str) -> None:
    """Check that timm, which the model `name` needs, is installed, without importing it.

    Raises:
        ModelError: If it is not; the message says how to install it.
    """
    if find_spec("timm") is None:
        raise ModelError(f"model {name!r} needs timm: {installing('timm')}")


def build(
    model: str,
    input_shape: ImageShape,
    num_classes: int,
    width: float,
    pretrained: bool = False,
    **options: Any,
) -> nn.Module:
    """Call `timm.create_model`, for images with any number of channels.

    Pretrained weights expect the normalisation given in the model's `pretrained_cfg`, usually ImageNet's.

    Args:
        model: A name that `timm.create_model` accepts.
        input_shape: (channels, height, width) of one image.
        num_classes: Number of logits.
        width: Must be 1; timm models have their width in their name.
        pretrained: Whether to download weights.
        options: Further arguments of `timm.create_model`, such as `img_size`.

    Raises:
        UnknownNameError: If timm has no such model.
        ModelError: If timm is not installed, rejects an option or cannot download the weights.
    """
    name = f"timm/{model}"
    need_installed(name)
    import_torchvision("transforms")  # timm imports it too
    import timm

    if not timm.is_model(model):
        near = get_close_matches(model, timm.list_models(), n=3, cutoff=0.5)
        accepted = f"did you mean {', '.join(near)}? " if near else ""
        raise UnknownNameError(f"unknown timm model {model!r}; {accepted}accepted: what timm.list_models() lists")
    if width != 1:
        family = re.compile(re.escape(model.rstrip("0123456789")) + r"\d+")
        others = [f"timm/{other}" for other in timm.list_models() if family.fullmatch(other) and other != model]
        siblings = f"; its sizes are models of their own: {', '.join(others)}" if others else ""
        raise ModelError(f"model {name!r} has no width to vary, found {width}; accepted: 1{siblings}")
    with explained(f"model {name!r} cannot be made"):
        network: nn.Module = timm.create_model(
            model, pretrained=pretrained, num_classes=num_classes, in_chans=input_shape[0], **options
        )
    return network
