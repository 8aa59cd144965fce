"""AMSGrad."""

from __future__ import annotations

from kdsweep.training.optimizers.adam import Adam
from kdsweep.training.optimizers.base import OPTIMIZERS


@OPTIMIZERS.declare
class AMSGrad(Adam):
    """Adam scaled by the largest running mean of squared gradients so far.

    Reddi, Kale, Kumar 2018, arXiv:1904.09237.
    """

    name = "amsgrad"
    stacks = "gradient"
    amsgrad = True
