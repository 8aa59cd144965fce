"""Progress of a running sweep: what is reported, in words, and plain lines for logs. `live` draws it on a terminal.

All output goes to standard error; standard output is for data.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console

from kdsweep.tasks.metrics import shown
from kdsweep.words import count_of

PLAIN_SECONDS = 5.0
RECENT_SECONDS = 60.0  # over which the speed is measured
STARTING_SECONDS = 10.0  # in which most of the time goes into starting workers, so that it tells nothing about the rest


@dataclass(frozen=True)
class SearchStatus:
    """The progress of a search.

    Attributes:
        target: Total number of trials to run.
        running: Number of running trials.
        complete: Number of trials that reached the last epoch.
        pruned: Number of trials stopped early.
        failed: Number of failed trials.
        epochs: Number of epochs trained in this session, over all trials.
        objective: Column of the objective, `val_NAME`.
        best_value: Best value of the objective so far; NaN before the first epoch.
        best_config: Configuration of the best trial.
        teacher_value: The teacher's value of the objective.
        waiting: Number of unfinished trials that do not run: interrupted, or paused at a rung or for want of budget.
        spent: Spent share of the budget; 0 without a budget.
        left: What is left of the budget, in words; empty without a budget.
        plain_value: Best value of a plain student so far; NaN if there is none.
        workers: Number of workers.
        busy: Share of the workers' time that was spent on trials; NaN before the first report.
    """

    target: int
    running: int
    complete: int
    pruned: int
    failed: int
    epochs: int
    objective: str
    best_value: float
    best_config: Mapping[str, Any]
    teacher_value: float
    waiting: int = 0
    spent: float = 0.0
    left: str = ""
    plain_value: float = math.nan
    workers: int = 0
    busy: float = math.nan

    @property
    def over(self) -> bool:
        """Whether the search has ended."""
        return self.ended == self.target or (self.spent >= 1 and not self.running)

    @property
    def done(self) -> float:
        """How much of the search is done, from 0 to 1: of the trials or of the budget, whichever ends it first."""
        return min(1.0, max(self.ended / self.target, self.spent))

    @property
    def ended(self) -> int:
        """Number of finished trials: complete, stopped early or failed."""
        return self.complete + self.pruned + self.failed


class Progress(Protocol):
    """Receives the progress of a sweep."""

    def phase(self, name: str, text: str) -> None:
        """Report the start of a phase (data, teacher, search, confirm) or a message from it."""

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        """Report that a phase has done `done` of `total` steps."""

    def search(self, status: SearchStatus) -> None:
        """Report the progress of the search."""

    def __enter__(self) -> Progress: ...

    def __exit__(self, *exc: object) -> None: ...


class Silent:
    """Shows nothing."""

    def phase(self, name: str, text: str) -> None:
        pass

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        pass

    def search(self, status: SearchStatus) -> None:
        pass

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


class PlainLines:
    """Prints plain lines, at most one every few seconds, for logs and pipes."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self._console = console
        self._clock = clock
        self._pace: Pace | None = None
        self._next = -math.inf
        self._over = False

    def phase(self, name: str, text: str) -> None:
        self._line(name, text)

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        if done == total or self._clock() >= self._next:
            self._line(name, f"{done}/{total} {text}")

    def search(self, status: SearchStatus) -> None:
        if self._pace is None:
            self._pace = Pace(self._clock)
        self._pace.note(status.done, status.epochs)
        if (status.over and not self._over) or self._clock() >= self._next:
            self._over = status.over
            best = (
                f"{best_text(status)}: {config_text(status.best_config)}" if status.best_config else best_text(status)
            )
            told = [
                f"{status.ended}/{count_of(status.target, 'trial')}: {counts_text(status)}",
                best,
                work_text(status, self._pace),
            ]
            self._line("search", "; ".join([*filter(None, told), self._pace.times()]))

    def _line(self, name: str, text: str) -> None:
        self._next = self._clock() + PLAIN_SECONDS
        self._console.print(f"{name:7} {text}", markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def config_text(config: Mapping[str, Any]) -> str:
    """Format settings on one line: `kd, width 0.5, lr 0.0031, ...`."""
    return ", ".join(config_parts(config))


def config_parts(config: Mapping[str, Any]) -> list[str]:
    """Format settings one by one: `kd`, `width 0.5`, `lr 0.0031`, ..."""
    shown = {key: value for key, value in config.items() if key != "method"}
    values = (f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items())
    return [str(config.get("method", "")), *values]


class Pace:
    """The speed of something that goes from 0 to 1, starting when this is created.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._begin = clock()
        self._noted = self._begin
        self._first: float | None = None
        self._done = 0.0
        self._epochs: deque[tuple[float, int]] = deque([(self._begin, 0)])

    def note(self, done: float, epochs: int = 0) -> None:
        """Record how much is done, from 0 to 1, and how many epochs have been trained."""
        now = self._clock()
        if self._first is None:
            self._first = done
        if done != self._done:
            self._noted = now
        self._done = done
        self._epochs.append((now, epochs))
        while len(self._epochs) > 2 and self._epochs[1][0] <= now - RECENT_SECONDS:
            self._epochs.popleft()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._begin

    @property
    def epochs_per_second(self) -> float:
        """Epochs per second over about the last minute; 0 before the first epoch."""
        (begin, before), (_, now) = self._epochs[0], self._epochs[-1]
        elapsed = self._clock() - begin
        return (now - before) / elapsed if elapsed > 0 else 0.0

    @property
    def left(self) -> float:
        """Estimated seconds until all is done; NaN at the beginning, and once the estimate was too low.

        The estimate is made when something is done, and counts down until the next.
        """
        done = self._done - (self._first or 0.0)
        if done <= 0 or self.elapsed < STARTING_SECONDS:
            return math.nan
        estimate = (self._noted - self._begin) * (1 - self._done) / done - (self._clock() - self._noted)
        return estimate if estimate >= 0 else math.nan

    def times(self) -> str:
        """The time so far, and the time left if it can be estimated."""
        left = self.left
        estimate = "" if math.isnan(left) or self._done >= 1 else f", about {duration(left)} left"
        return f"{duration(self.elapsed)} elapsed{estimate}"


def work_text(status: SearchStatus, pace: Pace) -> str:
    """The speed, the load of the workers and what is left of the budget."""
    parts = [f"{pace.epochs_per_second:.1f} epochs/s"] if pace.epochs_per_second else []
    if not math.isnan(status.busy):
        parts.append(f"{count_of(status.workers, 'worker')} {min(1.0, status.busy):.0%} busy".replace("%", " %"))
    return ", ".join([*parts, *([f"budget: {status.left}"] if status.left else [])])


def counts_text(status: SearchStatus) -> str:
    """The trials by state."""
    waiting = f", {status.waiting} waiting" if status.waiting else ""
    return (
        f"{status.running} running, {status.complete} complete, {status.pruned} stopped early, "
        f"{status.failed} failed{waiting}"
    )


def best_text(status: SearchStatus) -> str:
    """The best value so far, beside that of the best plain student and of the teacher."""
    values = {"plain": status.plain_value, "teacher": status.teacher_value}
    others = ", ".join(f"{name} {shown(status.objective, value)}" for name, value in values.items() if value == value)
    best = "no epoch yet" if math.isnan(status.best_value) else f"best {shown(status.objective, status.best_value)}"
    return f"{best} ({others})" if others else best


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
