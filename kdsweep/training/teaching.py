"""Interfaces for the teacher outputs of a run."""

from __future__ import annotations

from typing import Protocol

from kdsweep.lazy import torch
from kdsweep.methods import Outputs
from kdsweep.tasks import View


class TeacherView(Protocol):
    """Returns teacher outputs during one epoch."""

    def __call__(self, index: torch.Tensor, batch: torch.Tensor) -> Outputs:
        """Return the outputs for the samples at `index` [B], whose augmented inputs are `batch` [B, ...]."""


class TeacherSource(Protocol):
    """Provides the teacher outputs of a run."""

    def example(self) -> Outputs:
        """Return the outputs of a small batch, to get their shapes, with the classifier."""

    def epoch(self, epoch: int, view: View) -> TeacherView:
        """Return the outputs of one epoch. Epochs count from 1."""


class NoTeacher:
    """Empty teacher outputs, for runs without distillation."""

    def __init__(self, device: torch.device):
        self._empty = Outputs(torch.empty(0, device=device), torch.empty(0, device=device))

    def example(self) -> Outputs:
        return self._empty

    def epoch(self, epoch: int, view: View) -> TeacherView:
        return lambda index, batch: self._empty
