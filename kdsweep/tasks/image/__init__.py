"""Image classification: batches of uint8 images, keyed views, seeded splits."""

from __future__ import annotations

from kdsweep.tasks.image.task import ImageTask

__all__ = ["ImageTask"]
