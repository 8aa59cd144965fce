"""The interface of a loss on the labels."""

from __future__ import annotations

from typing import ClassVar

from kdsweep.lazy import torch
from kdsweep.params import Declared, Parts


class TaskLoss(Declared):
    """A loss on the labels.

    A subclass declares its parameters as `Param` attributes and computes the loss when called. A parameter named
    `label_smoothing` is set from `train.label_smoothing` in the sweep file.

    Args:
        params: Values of the declared parameters.

    Attributes:
        takes_probabilities: Whether labels may also be class probabilities [B, C], as MixUp and CutMix make them.
    """

    kind = "task loss"
    takes_probabilities: ClassVar[bool] = False

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch.

        Args:
            logits: [B, C], float32.
            labels: [B], class indices; or class probabilities [B, C], float32, if the loss takes them.

        Returns:
            A scalar, the mean over the batch.
        """
        raise NotImplementedError

    def together(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The losses of several students on a batch. Only students of losses that define this train in cohorts.

        Args:
            logits: [K, B, C], float32.
            labels: [B], class indices.

        Returns:
            [K].
        """
        raise NotImplementedError


LOSSES: Parts[TaskLoss] = Parts(TaskLoss, "kdsweep.tasks.losses")
