"""Samplers: one file each, discovered automatically."""

from __future__ import annotations

from kdsweep.search.samplers.base import SAMPLERS, Sampler, sampler_of

__all__ = ["SAMPLERS", "Sampler", "sampler_of"]
