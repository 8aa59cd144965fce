"""Losses on the labels: one file each, discovered automatically."""

from __future__ import annotations

from kdsweep.tasks.losses.base import LOSSES, TaskLoss

__all__ = ["LOSSES", "TaskLoss"]
