"""Model size: parameter count and MiB."""

from __future__ import annotations

from kdsweep.lazy import nn


def count_parameters(model: nn.Module) -> int:
    """Count the model's parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def size_mb(model: nn.Module) -> float:
    """Size of parameters and buffers in MiB (bytes / 1024²); shared ones count once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1024**2
