"""What a tracker has been given, so that nothing is logged twice."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from kdsweep.seeds import digest_of
from kdsweep.storage.jsonl import LineLog, read_lines
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal
from kdsweep.tracking.base import Group


@dataclass
class Sent:
    """What a tracker has been given about one trial.

    Attributes:
        run: The id of its run; empty if it has none yet.
        epoch: The last epoch.
        state: How it ended; empty if that was not logged yet.
        confirmed: Digest of what the confirmation found.
    """

    run: str = ""
    epoch: int = 0
    state: str = ""
    confirmed: str = ""


class SentLog:
    """The log of what one tracker has been given, in the sweep's directory.

    Args:
        sweep: The sweep's directory.
        tracker: Name of the tracker.
        identity: Tells its places apart: runs of another place do not count.
        goal: The objective of the sweep.
        writable: Whether to record anything. Only the driver of the sweep may.

    Raises:
        SweepDirError: If the log is damaged.
    """

    def __init__(self, sweep: SweepDir, tracker: str, identity: str, goal: Goal, writable: bool = True):
        self._trials: dict[str, Sent] = {}
        place = digest_of([tracker, identity])[:12]
        begun: dict[str, Any] = {}
        counts = False
        for entry in read_lines(sweep.tracked(tracker)):
            if "place" in entry:
                counts = entry["place"] == place
                begun = entry if counts else begun
            elif counts:
                self._take(entry)
        first = not begun
        if first:
            begun = {"place": place, "name": sweep.root.name, "id": uuid.uuid4().hex[:8]}
        self.group = Group(begun["name"], begun["id"], sweep, goal)
        self._log: LineLog | None = None
        if writable:
            sweep.tracked(tracker).parent.mkdir(parents=True, exist_ok=True)
            self._log = LineLog(sweep.tracked(tracker))
            if first or not counts:
                self._log.append(begun)

    def __getitem__(self, key: str) -> Sent:
        """Return what was sent about a trial."""
        return self._trials.get(key) or Sent()

    def note(self, key: str, **sent: Any) -> None:
        """Record what was just sent about a trial: any field of `Sent`."""
        assert self._log is not None
        entry = {"trial": key, **sent}
        self._log.append(entry)
        self._take(entry)

    def close(self) -> None:
        """Close the file."""
        if self._log is not None:
            self._log.close()

    def _take(self, entry: dict[str, Any]) -> None:
        sent = self._trials.setdefault(entry["trial"], Sent())
        for name, value in entry.items():
            if name != "trial":
                setattr(sent, name, value)
