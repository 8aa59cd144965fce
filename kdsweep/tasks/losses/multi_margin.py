"""The multi-class margin loss."""

from __future__ import annotations

from kdsweep.lazy import F, torch
from kdsweep.tasks.losses.base import LOSSES, TaskLoss


@LOSSES.declare
class MultiMargin(TaskLoss):
    """Multi-class hinge loss with a margin of 1: the sum over wrong classes divided by the number of classes.

    Crammer and Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector machines", in
    PyTorch's variant, which sums over the wrong classes.
    """

    name = "multi_margin"

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the batch."""
        return F.multi_margin_loss(logits, labels)

    def together(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the batch, for each student."""
        each = F.multi_margin_loss(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
        return each.view(len(logits), -1).mean(dim=1)
