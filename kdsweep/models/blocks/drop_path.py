"""Stochastic depth of residual blocks."""

from __future__ import annotations

import torch
from torch import nn


class DropPath(nn.Module):
    """Drops the residual branch of single samples in training (Huang et al. 2016, arXiv:1603.09382).

    A kept branch is divided by its probability of being kept, so that in evaluation the branch is used as it is.

    Args:
        p: Probability that a sample's branch is dropped; 0 unless `models.drop_paths` sets it.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        """Map [B, ...] to the same shape."""
        if not self.training or self.p == 0:
            return branch
        kept = branch.new_empty((len(branch), *[1] * (branch.ndim - 1))).bernoulli_(1 - self.p)
        return branch * kept.div_(1 - self.p)
