"""The multi-class margin loss."""

from __future__ import annotations

from kdsweep.lazy import F, torch
from kdsweep.tasks.losses.base import LOSSES, TaskLoss


@LOSSES.declare
class MultiMargin(TaskLoss):
    """By how much each wrong class comes within a margin of 1 of the right one, mean over classes.

    Crammer, Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector machines", summed over
    the wrong classes as PyTorch does.
    """

    name = "multi_margin"

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the batch."""
        return F.multi_margin_loss(logits, labels)
