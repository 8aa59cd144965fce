"""The paths that a worker needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdsweep.storage.paths import SweepDir


@dataclass(frozen=True)
class WorkerPlace:
    """The paths that a worker needs, valid on every node.

    Attributes:
        sweep: The sweep directory.
        data: Directory of the prepared data.
        code: Directory from which the user's own modules are imported.
    """

    sweep: SweepDir
    data: Path
    code: Path
