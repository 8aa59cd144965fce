"""How good is a model? One file a kind of metric, found without editing a list."""

from __future__ import annotations

from kdsweep.tasks.metrics.base import METRICS, Direction, Goal, Metric, is_fraction, mean, register, shown, shown_gain

__all__ = ["METRICS", "Direction", "Goal", "Metric", "is_fraction", "mean", "register", "shown", "shown_gain"]
