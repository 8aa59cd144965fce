"""Decay shapes over training: constant, linear and cosine.

The learning rate, alpha (the share of distillation) and the temperature's distance from 1 use the same shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from kdsweep.lazy import torch

SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}


def remaining(shape: str, progress: float) -> float:
    """Return the remaining fraction of the initial value.

    Args:
        shape: `constant` stays at 1; `linear` decays linearly to 0; `cosine` follows half a cosine to 0.
        progress: Fraction of all steps already done, 0..1.
    """
    return SHAPES[shape](progress)


class Factor:
    """A factor that follows a decay shape, stored where a compiled step can read it.

    Args:
        shape: One of `SHAPES`.
        device: The device that runs the steps.

    Attributes:
        value: 1 for `constant`; otherwise a float32 scalar on the device, updated in place.
    """

    def __init__(self, shape: str, device: torch.device):
        self._shape = shape
        self.value: float | torch.Tensor = 1.0 if shape == "constant" else torch.ones((), device=device)

    def advance(self, progress: float) -> None:
        """Set the factor for `progress`, the fraction of all steps done, without waiting for the device."""
        if isinstance(self.value, torch.Tensor):
            self.value.fill_(remaining(self._shape, progress))
