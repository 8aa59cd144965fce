"""Where a run's teacher outputs come from."""

from __future__ import annotations

from typing import Protocol

from kdsweep.lazy import torch
from kdsweep.methods import Outputs
from kdsweep.tasks import View


class TeacherView(Protocol):
    """A teacher's outputs in one epoch."""

    def __call__(self, index: torch.Tensor, batch: torch.Tensor) -> Outputs:
        """Outputs for the samples at `index` [B], which look like `batch` [B, ...]."""


class TeacherSource(Protocol):
    """Where a run's teacher outputs come from."""

    def example(self) -> Outputs:
        """Outputs of a small batch, for their shapes, with the classifier."""

    def epoch(self, epoch: int, view: View) -> TeacherView:
        """The outputs of one epoch, counted from 1."""


class NoTeacher:
    """For runs that distil nothing."""

    def __init__(self, device: torch.device):
        self._empty = Outputs(torch.empty(0, device=device), torch.empty(0, device=device))

    def example(self) -> Outputs:
        """Empty outputs."""
        return self._empty

    def epoch(self, epoch: int, view: View) -> TeacherView:
        """Empty outputs."""
        return lambda index, batch: self._empty
