"""Keyed transforms of training images: one file each, discovered automatically."""

from __future__ import annotations

from kdsweep.tasks.image.transforms.base import TRANSFORMS, Draws, Mixer, Transform

__all__ = ["TRANSFORMS", "Draws", "Mixer", "Transform"]
