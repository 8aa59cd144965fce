"""Stopping rules: one file each, discovered automatically."""

from __future__ import annotations

from kdsweep.search.stopping.base import STOPPING_RULES, StoppingRule

__all__ = ["STOPPING_RULES", "StoppingRule"]
