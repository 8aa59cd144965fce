"""The numeric precision of a run."""

from __future__ import annotations

from kdsweep.lazy import torch


def autocast_dtype(precision: str) -> torch.dtype:
    """Return the autocast dtype. `auto` means float32 when no measurement has resolved it."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
