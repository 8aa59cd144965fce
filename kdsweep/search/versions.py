"""The versions of a sweep's search space: `kdsweep resume --set space...` narrows or widens it."""

from __future__ import annotations

from typing import Any

from kdsweep.storage.jsonl import read_lines
from kdsweep.storage.paths import SweepDir


def space_version(sweep: SweepDir) -> int:
    """Return the number of the present space among the different ones that the sweep has had, counted from 0."""
    spaces: list[Any] = []
    version = 0
    for saved in read_lines(sweep.specs, wanted=("space",)):
        if saved["space"] not in spaces:
            spaces.append(saved["space"])
        version = spaces.index(saved["space"])
    return version
