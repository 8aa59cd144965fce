"""The paths that a worker needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdsweep.storage.following import fetch_folder
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

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle the data's path relative to the store, which each node has elsewhere if it is in an object store."""
        if not self.sweep.uri:
            return type(self), (self.sweep, self.data, self.code)
        return _on_this_node, (self.sweep, self.data.relative_to(self.sweep.store.root), self.code)

    def fetch(self) -> None:
        """Fetch what every worker reads, if the sweep is in an object store."""
        self.sweep.fetch_needed()
        fetch_folder(self.data)


def _on_this_node(sweep: SweepDir, data: Path, code: Path) -> WorkerPlace:
    return WorkerPlace(sweep, sweep.store.root / data, code)
