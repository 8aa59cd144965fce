"""Directions of vectors."""

from __future__ import annotations

from kdsweep.lazy import torch


def unit(vectors: torch.Tensor, dim: int, smallest: float = 1e-12) -> torch.Tensor:
    """Vectors of length 1 along `dim`.

    A vector shorter than `smallest` stays as it is. Dividing it by a small constant instead would multiply
    its gradient by the inverse, and dead units do occur in narrow students.
    """
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / torch.where(length > smallest, length, 1.0)
