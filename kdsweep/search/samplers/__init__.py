"""Samplers: one file each, discovered automatically."""

from __future__ import annotations

from kdsweep.search.samplers.base import SAMPLERS, Sampler

__all__ = ["SAMPLERS", "Sampler"]
