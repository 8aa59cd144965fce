"""Where a worker finds a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdsweep.storage.paths import SweepDir


@dataclass(frozen=True)
class WorkerPlace:
    """The paths that a worker needs; every node reaches them.

    Attributes:
        sweep: The sweep's directory.
        data: The directory of its prepared data.
        code: The directory that the user's own modules are imported from.
    """

    sweep: SweepDir
    data: Path
    code: Path
