"""Image classification: batches of uint8 images, seeded augmentation and seeded splits."""

from __future__ import annotations

from kdsweep.tasks.image.agreement import AgreementTask
from kdsweep.tasks.image.task import ImageTask

__all__ = ["AgreementTask", "ImageTask"]
