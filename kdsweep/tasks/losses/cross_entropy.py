"""Cross entropy."""

from __future__ import annotations

from kdsweep.distributions import Uniform
from kdsweep.lazy import F, torch
from kdsweep.params import Param
from kdsweep.tasks.losses.base import LOSSES, TaskLoss


@LOSSES.declare
class CrossEntropy(TaskLoss):
    """Negative log-probability of the right class.

    Label smoothing: Szegedy et al. 2016, arXiv:1512.00567.
    """

    name = "cross_entropy"
    takes_probabilities = True
    label_smoothing = Param(0.0, "share of each label that goes to all classes alike", valid=Uniform(0.0, 1 - 1e-9))

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the batch, in nats."""
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def together(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the batch, for each student."""
        every = labels.repeat(len(logits), *[1] * (labels.ndim - 1))
        each = F.cross_entropy(logits.flatten(0, 1), every, reduction="none", label_smoothing=self.label_smoothing)
        return each.view(len(logits), -1).mean(dim=1)
