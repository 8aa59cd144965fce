"""What falls from its value at the start of training to nothing at the end, and how.

The learning rate, the share of distillation and the temperature's distance from 1 follow the same shapes.
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
    """What remains of 1.

    Args:
        shape: `constant` keeps all of it; `linear` is a line to 0, `cosine` half a cosine to 0.
        progress: Share of all steps already done, 0..1.
    """
    return SHAPES[shape](progress)


class Factor:
    """A factor that follows a shape, where a compiled step can read it.

    Args:
        shape: One of `SHAPES`.
        device: Where the steps run.

    Attributes:
        value: 1 for `constant`; else a float32 scalar on the device, changed in place.
    """

    def __init__(self, shape: str, device: torch.device):
        self._shape = shape
        self.value: float | torch.Tensor = 1.0 if shape == "constant" else torch.ones((), device=device)

    def advance(self, progress: float) -> None:
        """Go to a share `progress` of all steps, without waiting for the device."""
        if isinstance(self.value, torch.Tensor):
            self.value.fill_(remaining(self._shape, progress))
