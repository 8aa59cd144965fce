"""Weight initialisation of residual networks."""

from __future__ import annotations

from torch import nn


def kaiming(model: nn.Module) -> None:
    """Initialise convolutions from a normal with variance 2 / fan-out (He et al. 2015, arXiv:1502.01852)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
