"""Stopping rules: one file each, discovered automatically."""

from __future__ import annotations

from kdsweep.search.stopping.base import STOPPING_RULES, StoppingRule, rule_of

__all__ = ["STOPPING_RULES", "StoppingRule", "rule_of"]
