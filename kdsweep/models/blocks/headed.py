"""A student whose logits come from the distillation method's own head on the last stage map."""

from __future__ import annotations

import torch
from torch import nn

from kdsweep.models.base import Tapped, Taps


class HeadedStudent(nn.Module):
    """The student up to its last stage map, followed by a head; the student's own classifier is ignored.

    Args:
        student: The student.
        taps: Where to tap the student's stage maps.
        head: Maps the last stage map to logits.
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
