"""Losses on the labels: one file each, found without editing a list."""

from __future__ import annotations

from kdsweep.tasks.losses.base import LOSSES, TaskLoss

__all__ = ["LOSSES", "TaskLoss"]
