"""Optimizers: one file each, discovered automatically.

They call PyTorch's fused kernels directly. Creating the first `torch.optim.Optimizer` in a process imports PyTorch's
compiler, which takes seconds and 80 MB.
"""

from __future__ import annotations

from kdsweep.training.optimizers.base import OPTIMIZERS, Optimizer

__all__ = ["OPTIMIZERS", "Optimizer"]
