"""The order of samples in an epoch, on the host and on the device."""

from __future__ import annotations

from collections.abc import Sequence

from kdsweep.lazy import torch


def on_device(indices: Sequence[torch.Tensor], device: torch.device) -> Sequence[torch.Tensor]:
    """Move index tensors to a device in one copy, so that no training step waits for a copy of its own."""
    if device.type == "cpu" or not indices:
        return indices
    moved = torch.cat(list(indices)).to(device)
    return list(moved.split([len(index) for index in indices]))
