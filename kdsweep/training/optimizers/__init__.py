"""Optimizers: one file each, found without editing a list.

They step through PyTorch's fused kernels themselves: the first `torch.optim.Optimizer` of a process imports PyTorch's
compiler, which takes seconds and 80 MB.
"""

from __future__ import annotations

from kdsweep.training.optimizers.base import OPTIMIZERS, Optimizer

__all__ = ["OPTIMIZERS", "Optimizer"]
