"""How large a model is."""

from __future__ import annotations

from kdsweep.lazy import nn


def count_parameters(model: nn.Module) -> int:
    """Numbers in the model's parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def size_mb(model: nn.Module) -> float:
    """Bytes of parameters and buffers / 1024², shared ones counted once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1024**2
