"""The interface of a tracker, and the registry of trackers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kdsweep.distributions import Config
from kdsweep.registry import Registry
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal

Metrics = Mapping[str, float]

MOST_OPEN = 64  # runs kept open at a time, where a run is a file or a connection; paused trials may be many


@dataclass(frozen=True)
class Group:
    """What the runs of one sweep have in common.

    Attributes:
        name: Name of the sweep when it was first tracked.
        id: Tells apart sweeps of the same name: 8 hex digits.
        sweep: The sweep's directory.
        goal: The objective of the sweep.
    """

    name: str
    id: str
    sweep: SweepDir
    goal: Goal


@dataclass(frozen=True)
class Ending:
    """How a trial ended.

    Attributes:
        state: COMPLETE, PRUNED or FAILED.
        error: Why it failed, else empty.
        summary: Its last numbers, by name.
    """

    state: str
    error: str
    summary: Metrics


class Tracker(ABC):
    """Logs the trials of one sweep as runs. It may raise anything: then it is not used for the rest of the session.

    Its methods are called in a thread of its own, one at a time, so they may block.

    Args:
        option: The value of its key in the sweep file.
        group: The sweep.
    """

    name: ClassVar[str]  # its key in the sweep file, and its extra
    package: ClassVar[str]  # the module that it imports

    @classmethod
    @abstractmethod
    def place(cls, option: Any, sweep: SweepDir) -> str:
        """Return where it logs, for display; without credentials."""

    @classmethod
    def identity(cls, option: Any) -> str:
        """Return what tells places apart: runs at one place are unknown at another."""
        return str(option)

    def __init__(self, option: Any, group: Group):
        self.group = group

    @abstractmethod
    def start(self, key: str, config: Config) -> str:
        """Create the run of a trial and return its id."""

    def logged(self, run: str) -> int:
        """Return the last epoch that a run is known to have; 0 if the tracker cannot tell."""
        return 0

    @abstractmethod
    def log(self, run: str, epochs: Mapping[int, Metrics]) -> None:
        """Log metrics by epoch, in order."""

    @abstractmethod
    def end(self, run: str, ending: Ending) -> None:
        """Log how a trial ended, and end its run."""

    @abstractmethod
    def confirm(self, run: str, values: Metrics, texts: Mapping[str, str]) -> None:
        """Log what the confirmation found, to a run that has ended."""

    @abstractmethod
    def attach(self, run: str, folder: Path) -> None:
        """Add an exported student to a run that has ended."""

    @abstractmethod
    def close(self) -> None:
        """Send everything that is still to be sent."""


TRACKERS: Registry[type[Tracker]] = Registry("tracker", "kdsweep.tracking")
