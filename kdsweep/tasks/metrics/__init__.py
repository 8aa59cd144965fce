"""Metrics, in one file per kind, discovered automatically."""

from __future__ import annotations

from kdsweep.tasks.metrics.base import (
    COSTS,
    DEFAULT_OBJECTIVE,
    HALF_A_POINT,
    METRICS,
    Direction,
    Goal,
    Metric,
    is_fraction,
    mean,
    register,
    shown,
    shown_gain,
)

__all__ = [
    "COSTS",
    "DEFAULT_OBJECTIVE",
    "HALF_A_POINT",
    "METRICS",
    "Direction",
    "Goal",
    "Metric",
    "is_fraction",
    "mean",
    "register",
    "shown",
    "shown_gain",
]
