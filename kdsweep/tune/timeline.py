"""Where the time of a run goes: when each stage began and ended, and how long the workers were busy."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

TRAINING = ("search", "confirm")  # the stages in which students are trained


@dataclass
class StageTimes:
    """The times of one stage, in seconds since the run began.

    Attributes:
        begin: When the stage began.
        first_step: When the first worker began its first piece of work; None before.
        end: When the stage ended; None before.
        busy: Seconds that workers spent on the stage's work, summed over the workers.
    """

    begin: float
    first_step: float | None = None
    end: float | None = None
    busy: float = 0.0


@dataclass
class Timeline:
    """The times of one run of the driver.

    Attributes:
        workers: Number of workers.
        stages: The stages that have begun, by name.
        first_epoch: When the first epoch of a trial was reported, in seconds since the run began; None before.
    """

    workers: int = 0
    stages: dict[str, StageTimes] = field(default_factory=dict)
    first_epoch: float | None = None

    def __post_init__(self) -> None:
        self._started = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def begin(self, stage: str) -> None:
        """Record that a stage begins."""
        self.stages[stage] = StageTimes(self.now)

    def worked(self, stage: str, seconds: float, epochs: int) -> None:
        """Record one report of a worker.

        Args:
            stage: The stage that the work belongs to.
            seconds: Time that the worker spent on what it reports.
            epochs: Number of epochs that it reports.
        """
        times = self.stages[stage]
        times.busy += seconds
        if times.first_step is None:
            times.first_step = self.now - seconds
        if stage == "search" and epochs and self.first_epoch is None:
            self.first_epoch = self.now

    def end(self, stage: str) -> None:
        """Record that a stage has ended."""
        self.stages[stage].end = self.now

    @property
    def trained(self) -> bool:
        """Whether workers have trained students."""
        return any(self.stages[name].busy > 0 for name in TRAINING if name in self.stages)

    def load(self, stage: str) -> float:
        """Share of the workers' time since the stage began that was spent on its work; NaN before the first report."""
        times = self.stages[stage]
        passed = self.now - times.begin
        return times.busy / (self.workers * passed) if times.busy and self.workers and passed > 0 else math.nan

    def described(self) -> dict[str, Any]:
        """Return the times as JSON values, rounded to milliseconds."""
        rounded = {
            name: {key: None if value is None else round(value, 3) for key, value in asdict(times).items()}
            for name, times in self.stages.items()
        }
        first = None if self.first_epoch is None else round(self.first_epoch, 3)
        return {"workers": self.workers, "first_epoch": first, "end": round(self.now, 3), "stages": rounded}

    def text(self) -> str:
        """Return one line: `start 9 s, search 33 s, confirm 31 s, idle workers 4 %`."""
        trained = {name: times for name, times in self.stages.items() if name != "prepare"}
        start = min((times.begin for times in trained.values()), default=self.now)
        parts = [f"start {start:.0f} s"]
        for name, times in trained.items():
            parts.append(f"{name} {(self.now if times.end is None else times.end) - times.begin:.0f} s")
        if trained and self.workers and self.now > start:
            idle = 1 - sum(times.busy for times in trained.values()) / (self.workers * (self.now - start))
            parts.append(f"idle workers {max(0.0, idle):.0%}".replace("%", " %"))
        return ", ".join(parts)
