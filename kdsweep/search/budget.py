"""The budget of a search: hours of wall time and trained epochs, over all sessions."""

from __future__ import annotations

import time
from contextlib import closing

from kdsweep.search.section import SearchSection
from kdsweep.storage.jsonl import LineLog, read_lines
from kdsweep.storage.paths import SweepDir
from kdsweep.words import count_of

TICK_SECONDS = 5.0


class Budget:
    """What a search has spent, and whether that is all it may spend.

    The time is logged as seconds since the previous entry of the same session, so a clock that is set back or the time
    between sessions changes nothing. After a crash, the time since the last entry is lost.

    Args:
        search: `max_hours` and `max_epochs`; 0 means unlimited.
        sweep: The sweep's directory.

    Attributes:
        epochs: Number of trained epochs, including those trained again after an interruption.
    """

    def __init__(self, search: SearchSection, sweep: SweepDir):
        self.epochs = 0
        self._search = search
        self._log = sweep.search_time
        self._logged = sum(float(entry["seconds"]) for entry in read_lines(self._log, wanted=("seconds",)))
        self._since: float | None = None

    @classmethod
    def logged(cls, search: SearchSection, sweep: SweepDir) -> Budget:
        """Return what the logs of a sweep say, whether or not it is running."""
        budget = cls(search, sweep)
        budget.epochs = sum(1 for _ in read_lines(sweep.epochs_log))
        return budget

    @property
    def seconds(self) -> float:
        """Seconds that the search has run, over all sessions."""
        return self._logged + (time.monotonic() - self._since if self._since is not None else 0.0)

    @property
    def share(self) -> float:
        """The spent share of the limit that is closest to its end, 1 or more if it is spent; 0 without limits."""
        hours, epochs = self._search.max_hours, self._search.max_epochs
        return max(self.seconds / 3600 / hours if hours else 0.0, self.epochs / epochs if epochs else 0.0)

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.share >= 1

    def start(self) -> None:
        """Start the clock of this session, unless it is running."""
        if self._since is None:
            self._since = time.monotonic()

    def tick(self) -> None:
        """Log the time of this session every few seconds."""
        if self._since is not None and time.monotonic() - self._since > TICK_SECONDS:
            self._write()

    def stop(self) -> None:
        """Log the rest of this session's time and stop its clock."""
        if self._since is not None:
            self._write()
            self._since = None

    def left(self) -> str:
        """Return what is left in words, such as `12 of 40 epochs left`; empty without limits."""
        hours, epochs = self._search.max_hours, self._search.max_epochs
        parts = [f"{max(0, epochs - self.epochs)} of {count_of(epochs, 'epoch')}"] if epochs else []
        parts += [f"{max(0.0, hours - self.seconds / 3600):.2f} of {count_of(hours, 'hour')}"] if hours else []
        return f"{', '.join(parts)} left" if parts else ""

    def limits(self) -> str:
        """Return the limits that are spent, such as `search.max_epochs (40)`."""
        hours, epochs = self._search.max_hours, self._search.max_epochs
        spent = [f"search.max_hours ({hours:g})"] if hours and self.seconds >= 3600 * hours else []
        return " and ".join(spent + ([f"search.max_epochs ({epochs})"] if epochs and self.epochs >= epochs else []))

    def _write(self) -> None:
        assert self._since is not None
        now = time.monotonic()
        with closing(LineLog(self._log)) as log:
            log.append({"seconds": round(now - self._since, 3)})
        self._logged += now - self._since
        self._since = now
