"""What the terminal shows while a sweep runs: a live view, or plain lines where there is no terminal.

Everything goes to standard error; standard output is for data.
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
    """How far a search is.

    Attributes:
        target: Trials there will be.
        running: Under way.
        complete: Reached the last epoch.
        pruned: Stopped early.
        failed: Failed.
        epochs: Epochs trained by all trials of this session.
        objective: The column of what is best.
        best_value: Its best value so far; NaN before the first.
        best_config: Its configuration.
        teacher_value: The teacher's, for comparison.
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

    @property
    def ended(self) -> int:
        """Trials that need no more work."""
        return self.complete + self.pruned + self.failed


class Progress(Protocol):
    """Hears what a sweep is doing."""

    def phase(self, name: str, text: str) -> None:
        """A phase began, or has something to say: data, teacher, search, confirm."""

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        """A phase of `total` steps has done so many."""

    def search(self, status: SearchStatus) -> None:
        """The search went on."""

    def __enter__(self) -> Progress: ...

    def __exit__(self, *exc: object) -> None: ...


class Silent:
    """Shows nothing; for sweeps run from Python."""

    def phase(self, name: str, text: str) -> None:
        """Nothing."""

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        """Nothing."""

    def search(self, status: SearchStatus) -> None:
        """Nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


class PlainLines:
    """Plain lines, a few a minute, for logs and pipes."""

    def __init__(self, console: Console):
        self._console = console
        self._clock = _Clock()
        self._next = 0.0
        self._ended = -1

    def phase(self, name: str, text: str) -> None:
        """One line."""
        self._line(name, text)

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        """One line now and then, and at the end."""
        if done == total or time.monotonic() >= self._next:
            self._line(name, f"{done}/{total} {text}")

    def search(self, status: SearchStatus) -> None:
        """One line now and then, and at the end."""
        self._clock.note(status)
        at_end = status.ended == status.target and self._ended != status.ended
        if at_end or time.monotonic() >= self._next:
            self._ended = status.ended
            self._line("search", f"{_counts(status)}; {_best(status)}; {self._clock.rate(status)}")

    def _line(self, name: str, text: str) -> None:
        self._next = time.monotonic() + PLAIN_SECONDS
        self._console.print(f"{name:8}{text}", markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


class LiveView:
    """A few lines that are redrawn in place."""

    def __init__(self, console: Console):
        self._console = console
        self._clock = _Clock()
        self._live = Live(console=console, refresh_per_second=8, transient=True)

    def phase(self, name: str, text: str) -> None:
        """A line that stays, above the live ones."""
        self._console.print(f"[bold cyan]{name:8}[/]{escape(text)}", highlight=False)
        self._live.update(Text(""))

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        """A bar with what was measured last."""
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            f"[bold cyan]{name:7}[/]", ProgressBar(total=total, completed=done, width=30), f"{done}/{total}", text
        )
        self._live.update(bar if done < total else Text(""))

    def search(self, status: SearchStatus) -> None:
        """A bar, the counts, the best so far and the pace."""
        self._clock.note(status)
        bar = Table.grid(padding=(0, 1))
        done = ProgressBar(total=status.target, completed=status.ended, width=30)
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
    """The live view on a terminal, plain lines elsewhere."""
    return LiveView(console) if console.is_terminal else PlainLines(console)


def config_text(config: Mapping[str, Any]) -> str:
    """A configuration in a few words: `kd, width 0.5, lr 0.0031, ...`."""
    shown = {key: value for key, value in config.items() if key != "method"}
    values = (f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items())
    return ", ".join([str(config.get("method", "")), *values])


class _Clock:
    """The pace of a search, from its first status on."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def note(self, status: SearchStatus) -> None:
        if self._first is None:
            self._first = (time.monotonic(), status.ended)

    def rate(self, status: SearchStatus) -> str:
        assert self._first is not None
        elapsed = time.monotonic() - self._first[0]
        ended = status.ended - self._first[1]
        pace = f"{status.epochs / elapsed:.1f} epochs/s" if elapsed > 0.5 else "starting"
        if ended <= 0 or status.ended == status.target:
            return f"{pace}, {_duration(elapsed)} so far"
        left = elapsed / ended * (status.target - status.ended)
        return f"{pace}, {_duration(elapsed)} so far, about {_duration(left)} left"


def _counts(status: SearchStatus) -> str:
    return (
        f"{status.ended}/{status.target} trials: {status.running} running, {status.complete} complete, "
        f"{status.pruned} stopped early, {status.failed} failed"
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
