"""Progress of a running sweep: a live view on a terminal, plain lines otherwise.

All output goes to standard error; standard output is for data.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdsweep.tasks.metrics import shown

PLAIN_SECONDS = 5.0


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
    """Shows nothing; the default for sweeps run from Python."""

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

    def __init__(self, console: Console):
        self._console = console
        self._clock = _Clock()
        self._next = 0.0
        self._over = False

    def phase(self, name: str, text: str) -> None:
        self._line(name, text)

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        if done == total or time.monotonic() >= self._next:
            self._line(name, f"{done}/{total} {text}")

    def search(self, status: SearchStatus) -> None:
        self._clock.note(status)
        if (status.over and not self._over) or time.monotonic() >= self._next:
            self._over = status.over
            self._line("search", f"{_counts(status)}; {_best(status)}; {self._clock.rate(status)}")

    def _line(self, name: str, text: str) -> None:
        self._next = time.monotonic() + PLAIN_SECONDS
        self._console.print(f"{name:8}{text}", markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


class LiveView:
    """Redraws a few lines in place."""

    def __init__(self, console: Console):
        self._console = console
        self._clock = _Clock()
        self._live = Live(console=console, refresh_per_second=8, transient=True)

    def phase(self, name: str, text: str) -> None:
        """Print a permanent line above the live view."""
        self._console.print(f"[bold cyan]{name:8}[/]{escape(text)}", highlight=False)
        self._live.update(Text(""))

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        """Show a progress bar with the latest text."""
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            f"[bold cyan]{name:7}[/]", ProgressBar(total=total, completed=done, width=30), f"{done}/{total}", text
        )
        self._live.update(bar if done < total else Text(""))

    def search(self, status: SearchStatus) -> None:
        """Show a progress bar, the trial counts, the best trial and the speed."""
        self._clock.note(status)
        bar = Table.grid(padding=(0, 1))
        done = ProgressBar(total=1.0, completed=status.done, width=30)
        bar.add_row("[bold cyan]search [/]", done, _counts(status))
        lines = [Text(" " * 8 + line) for line in (_best(status), self._clock.rate(status))]
        self._live.update(Group(bar, *lines))

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.update(Text(""))
        self._live.stop()


def for_console(console: Console) -> Progress:
    """Return a live view for a terminal, plain lines otherwise."""
    return LiveView(console) if console.is_terminal else PlainLines(console)


def config_text(config: Mapping[str, Any]) -> str:
    """Format settings on one line: `kd, width 0.5, lr 0.0031, ...`."""
    shown = {key: value for key, value in config.items() if key != "method"}
    values = (f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items())
    return ", ".join([str(config.get("method", "")), *values])


class _Clock:
    """Measures the speed of a search, starting at its first status."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def note(self, status: SearchStatus) -> None:
        if self._first is None:
            self._first = (time.monotonic(), status.done)

    def rate(self, status: SearchStatus) -> str:
        assert self._first is not None
        elapsed = time.monotonic() - self._first[0]
        done = status.done - self._first[1]
        pace = f"{status.epochs / elapsed:.1f} epochs/s" if elapsed > 0.5 else "starting"
        budget = f", budget: {status.left}" if status.left else ""
        if done <= 0 or status.over:
            return f"{pace}, {_duration(elapsed)} elapsed{budget}"
        left = elapsed / done * (1 - status.done)
        return f"{pace}, {_duration(elapsed)} elapsed, about {_duration(left)} left{budget}"


def _counts(status: SearchStatus) -> str:
    waiting = f", {status.waiting} waiting" if status.waiting else ""
    return (
        f"{status.ended}/{status.target} trials: {status.running} running, {status.complete} complete, "
        f"{status.pruned} stopped early, {status.failed} failed{waiting}"
    )


def _best(status: SearchStatus) -> str:
    teacher = f"(teacher {shown(status.objective, status.teacher_value)})"
    if math.isnan(status.best_value):
        return f"no epoch yet {teacher}"
    return f"best {shown(status.objective, status.best_value)} {teacher}: {config_text(status.best_config)}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
