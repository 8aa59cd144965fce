"""Text classification: tokens of a tokenizer, seeded splits, and batches as short as their texts."""

from __future__ import annotations

from kdsweep.tasks.text.task import TextTask

__all__ = ["TextTask"]
