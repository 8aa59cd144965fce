"""How weights are stepped: the optimizer, its rate over training, and the type of the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kdsweep.lazy import nn, torch
from kdsweep.training.schedules import remaining
from kdsweep.training.section import OptimizationSpec


def rate_factor(optimization: OptimizationSpec, progress: float) -> float:
    """The share of the learning rate after a share `progress` of all steps."""
    if optimization.schedule == "step":
        epoch = math.floor(progress * optimization.epochs + 1e-9)
        return optimization.gamma ** sum(epoch >= milestone for milestone in optimization.milestones)
    return remaining(optimization.schedule, progress)


def make_optimizer(optimization: OptimizationSpec, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a run, in its fused form."""
    common: dict[str, Any] = {"lr": optimization.lr, "weight_decay": optimization.weight_decay, "fused": True}
    make: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(parameters, **common),
        "amsgrad": lambda: torch.optim.Adam(parameters, amsgrad=True, **common),
        "adamw": lambda: torch.optim.AdamW(parameters, **common),
        "sgd": lambda: torch.optim.SGD(parameters, momentum=optimization.momentum, **common),
    }
    return make[optimization.optimizer]()


def autocast_dtype(precision: str) -> torch.dtype:
    """The type of a run's matrix products; `auto`, where nothing was measured, is float32."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
