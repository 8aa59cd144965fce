"""AdamW."""

from __future__ import annotations

from collections.abc import Callable

from kdsweep.distributions import Uniform
from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.training.optimizers.adam import Adam
from kdsweep.training.optimizers.base import OPTIMIZERS


@OPTIMIZERS.declare
class AdamW(Adam):
    """Adam with decoupled weight decay, applied to the weights instead of the gradient.

    Loshchilov, Hutter 2019, arXiv:1711.05101.
    """

    name = "adamw"
    stacks = "weights"
    weight_decay = Param(0.0, "each step shrinks a weight by this times the learning rate", valid=Uniform(0.0, 1e3))

    @staticmethod
    def kernel() -> Callable[..., None]:
        return torch._fused_adamw_
