"""A student whose logits come from a head that its distillation method put on its last stage map."""

from __future__ import annotations

import torch
from torch import nn

from kdsweep.models.base import Tapped, Taps


class HeadedStudent(nn.Module):
    """The student up to its last stage map, then the head; the student's own classifier is not used.

    Args:
        student: The student.
        taps: Where its stage maps are tapped.
        head: From the last stage map to logits.
    """

    def __init__(self, student: nn.Module, taps: Taps, head: nn.Module):
        super().__init__()
        self.student = student
        self.head = head
        self._tapped = Tapped(student, taps)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [B, C] for normalised images [B, C, H, W]."""
        logits: torch.Tensor = self.head(self._tapped(images).features[-1])
        return logits
