"""A model that normalises its own input."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from kdsweep.errors import ModelError
from kdsweep.lazy import nn


def normalised(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Prepend (images - mean) / std to `model`.

    Args:
        model: A model for normalised images [B, C, H, W].
        mean: Per-channel mean of images scaled to 0..1.
        std: Per-channel standard deviation, likewise.

    Returns:
        A sequence of `normalise` and `model` that takes images [B, C, H, W] scaled to 0..1 or of type uint8.

    Raises:
        ModelError: If the lengths differ or a standard deviation is not positive.
    """
    from kdsweep.models.blocks import Normalise

    if len(mean) != len(std) or not all(0 < value < math.inf for value in std) or not all(map(math.isfinite, mean)):
        raise ModelError(f"mean {list(mean)} and std {list(std)}; accepted: one of each per channel, std above 0")
    return nn.Sequential(OrderedDict(normalise=Normalise(mean, std), model=model))
