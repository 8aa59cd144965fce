"""The type of a run's arithmetic."""

from __future__ import annotations

from kdsweep.lazy import torch


def autocast_dtype(precision: str) -> torch.dtype:
    """The type of a run's matrix products; `auto`, where nothing was measured, is float32."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
