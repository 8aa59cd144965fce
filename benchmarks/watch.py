"""Records a sweep's progress with timestamps, for benchmarks that measure a sweep from outside."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self

from kdsweep.terminal.progress import SearchStatus


@dataclass(frozen=True)
class Moment:
    """The progress of a search at one time.

    Attributes:
        seconds: Since the stopwatch was made.
        cpu_seconds: Of this process, which is the sweep's driver.
        epochs: Trained.
        ended: Trials.
    """

    seconds: float
    cpu_seconds: float
    epochs: int
    ended: int


@dataclass
class Stopwatch:
    """A `Progress` for `kdsweep.run` that records the start of each phase and every step of the search."""

    phases: list[tuple[float, str]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    target: int = 0

    def __post_init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since this object was created."""
        return time.perf_counter() - self._started

    def phase(self, name: str, text: str) -> None:
        """Note when it began."""
        self.phases.append((self.seconds, name))

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        """Nothing."""

    def search(self, status: SearchStatus) -> None:
        """Note what was done."""
        self.target = status.target
        self.moments.append(Moment(self.seconds, time.process_time(), status.epochs, status.ended))

    def steady(self, places: int) -> tuple[Moment, Moment]:
        """The first and the last moment at which all slots were busy.

        Args:
            places: Trials at a time.
        """
        busy = [moment for moment in self.moments if moment.epochs >= places and moment.ended <= self.target - places]
        return busy[0], busy[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None
