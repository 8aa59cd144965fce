"""Learning-rate schedules: one file each, discovered automatically."""

from __future__ import annotations

from kdsweep.training.schedules.base import SCHEDULES, Schedule

__all__ = ["SCHEDULES", "Schedule"]
