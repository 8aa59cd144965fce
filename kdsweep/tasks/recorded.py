"""Comparison of a data set with the one that a sweep recorded in `data.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kdsweep.tasks.base import Prepared

STATISTICS = ("input_shape", "class_names", "mean", "std")


def same_data(recorded: Mapping[str, Any], data: Prepared) -> bool:
    """Whether the training and validation samples are those that were recorded.

    Version 0.1.0 recorded no hash of their content that is still comparable, but their statistics.
    """
    if recorded.get("digest") == data.digest:
        return True
    now = data.described()
    same = all(json.dumps(recorded.get(key)) == json.dumps(now.get(key)) for key in STATISTICS)
    return "contents" not in recorded and same


def same_test(recorded: Mapping[str, Any], data: Prepared) -> bool:
    """Whether the test samples are those that were recorded; True if no hash of them was recorded."""
    contents = recorded.get("contents") or {}
    return not contents or contents.get("test") == data.contents.get("test")
