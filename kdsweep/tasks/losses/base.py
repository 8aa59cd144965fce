"""The contract of a loss on the labels."""

from __future__ import annotations

from kdsweep.lazy import torch
from kdsweep.params import Declared, Parts


class TaskLoss(Declared):
    """What a student learns from the labels by.

    A subclass declares its parameters as `Param` attributes and computes the loss when called. A parameter called
    `label_smoothing` gets the value of this key of a sweep file's `train`.

    Args:
        params: Values of the declared parameters.
    """

    kind = "task loss"

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch.

        Args:
            logits: [B, C], float32.
            labels: [B], class indices.

        Returns:
            A scalar, the mean over the batch.
        """
        raise NotImplementedError


LOSSES: Parts[TaskLoss] = Parts(TaskLoss, "kdsweep.tasks.losses")
