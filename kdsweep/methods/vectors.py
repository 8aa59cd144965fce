"""Normalisation of vectors."""

from __future__ import annotations

from kdsweep.lazy import torch


def unit(vectors: torch.Tensor, dim: int, smallest: float = 1e-12) -> torch.Tensor:
    """Normalise vectors to length 1 along `dim`.

    Vectors shorter than `smallest` are left unchanged: dividing them by a small constant would blow up the gradient,
    and narrow students do have dead units.
    """
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / torch.where(length > smallest, length, 1.0)
