"""Live views of a running sweep: on a terminal, and in a notebook."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdsweep.errors import InputError, printable
from kdsweep.terminal.layout import flowed
from kdsweep.terminal.progress import (
    Pace,
    PlainLines,
    Progress,
    SearchStatus,
    Silent,
    best_text,
    config_parts,
    counts_text,
    duration,
    work_text,
)
from kdsweep.words import count_of, kind_of

REDRAWS_PER_SECOND = 2
RECEIVES = ("phase", "counted", "search", "__enter__", "__exit__")
NAMES = 8  # width of the phases' names
HEADING = "bold cyan"
LONGEST_BAR, SHORTEST_BAR = 30, 8
NOTEBOOK_WIDTH = 100
NOTEBOOK_STYLE = "white-space:pre;overflow-x:auto;line-height:normal;font-family:monospace"


@dataclass(frozen=True)
class _Counted:
    """A phase that has done `done` of `total` steps."""

    name: str
    done: int
    total: int
    text: str


class LiveView:
    """Redraws a few lines in place, by its own clock, so that times move between events.

    Args:
        console: A terminal.
        clock: Returns the time in seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self._console = console
        self._clock = clock
        self._name = ""
        self._pace = Pace(clock)
        self._latest: _Counted | SearchStatus | None = None
        self._live = Live(
            console=console, refresh_per_second=REDRAWS_PER_SECOND, transient=True, get_renderable=self.view
        )

    def phase(self, name: str, text: str) -> None:
        """Print a permanent line above the live view."""
        self._begin(name)
        self._console.print(_heading(name) + Text(printable(text), style="none"))

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        """Show a progress bar with the latest text."""
        if not isinstance(self._latest, _Counted) or self._name != name:
            self._begin(name, again=True)
        self._pace.note(done / total if total else 1.0)
        self._latest = _Counted(name, done, total, text)

    def search(self, status: SearchStatus) -> None:
        """Show a progress bar, the trials by state, the best student, the speed and the times."""
        if not isinstance(self._latest, SearchStatus):
            self._begin("search", again=True)
        self._pace.note(status.done, status.epochs)
        self._latest = status

    def view(self) -> RenderableType:
        """The lines that are redrawn, as of now."""
        latest = self._latest
        if isinstance(latest, SearchStatus):
            return self._search(latest)
        if latest is not None:
            steps = f"{latest.done}/{latest.total} {latest.text}"
            return self._bar(latest.name, latest.done / latest.total if latest.total else 1.0, steps)
        if not self._name:
            return Text("")
        return _heading(self._name) + Text(f"{duration(self._pace.elapsed)} elapsed", style="none")

    def _search(self, status: SearchStatus) -> RenderableType:
        best = flowed(map(printable, _listed(config_parts(status.best_config))), self._console.width - NAMES)
        lines = [counts_text(status), best_text(status), *(best if status.best_config else [])]
        lines += filter(None, [work_text(status, self._pace)])
        indented = [Text(" " * NAMES + line, no_wrap=True, overflow="ellipsis") for line in lines]
        return Group(self._bar("search", status.done, f"{status.ended}/{count_of(status.target, 'trial')}"), *indented)

    def _bar(self, name: str, done: float, text: str) -> RenderableType:
        """A line with a bar; the times go to a line of their own where the width is small."""
        times = self._pace.times()
        room = self._console.width - NAMES - 1 - len(text) - 2 - len(times)
        below = room < SHORTEST_BAR
        if below:
            room += 2 + len(times)
        bar = ProgressBar(total=1.0, completed=done, width=max(SHORTEST_BAR, min(LONGEST_BAR, room)))
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_row(
            Text(f"{name:{NAMES - 1}}", style=HEADING), bar, Text(text if below else f"{text}  {times}", no_wrap=True)
        )
        return Group(grid, Text(" " * NAMES + times)) if below else grid

    def _begin(self, name: str, again: bool = False) -> None:
        """Restart the clock at the beginning of a phase; a message of the same phase leaves it."""
        if again or name != self._name:
            self._pace = Pace(self._clock)
            self._latest = None
        self._name = name

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._name, self._latest = "", None
        self._live.stop()


class NotebookView:
    """The same lines as one output of a notebook's cell, replaced as the sweep proceeds.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lines = _page()
        self._view = LiveView(self._lines, clock)
        self._output: Any = None
        self._next = -math.inf

    def phase(self, name: str, text: str) -> None:
        self._view.phase(name, text)
        self._show()

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        self._view.counted(name, done, total, text)
        if done == total or self._clock() >= self._next:
            self._show()

    def search(self, status: SearchStatus) -> None:
        self._view.search(status)
        if status.over or self._clock() >= self._next:
            self._show()

    def _show(self, *, running: bool = True) -> None:
        self._next = self._clock() + 1 / REDRAWS_PER_SECOND
        moving = _page()
        if running:
            moving.print(self._view.view())
        pages = (self._lines, moving)
        text = "".join(page.export_text(clear=False) for page in pages)
        html = "".join(page.export_html(clear=False, inline_styles=True, code_format="{code}") for page in pages)
        bundle = {"text/plain": text, "text/html": f'<pre style="{NOTEBOOK_STYLE}">{html}</pre>'}
        if self._output is None:
            from IPython.display import display

            self._output = display(bundle, raw=True, display_id=True)
        else:
            self._output.update(bundle, raw=True)

    def __enter__(self) -> NotebookView:
        return self

    def __exit__(self, *exc: object) -> None:
        self._show(running=False)


def for_console(console: Console) -> Progress:
    """Return a live view for a terminal that can redraw lines or for a notebook, plain lines otherwise."""
    if console.is_jupyter:
        return NotebookView()
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainLines(console)


def shown(progress: Progress | bool) -> Progress:
    """Return what receives the progress of a sweep from Python: the default view, nothing, or the caller's own.

    Raises:
        InputError: If it is something else.
    """
    if isinstance(progress, bool):
        return for_console(Console(stderr=True, emoji=False)) if progress else Silent()
    if isinstance(progress, type) or not all(hasattr(progress, name) for name in RECEIVES):
        accepted = "True, False, or an object that receives it, as kdsweep.terminal.progress.Progress describes"
        raise InputError(f"progress: found {kind_of(progress)}; accepted: {accepted}")
    return progress


def _page() -> Console:
    """Return a console that only records."""
    return Console(
        file=io.StringIO(), width=NOTEBOOK_WIDTH, record=True, force_jupyter=False, legacy_windows=False, emoji=False
    )


def _heading(name: str) -> Text:
    return Text(f"{name:{NAMES}}", style=HEADING)


def _listed(parts: list[str]) -> list[str]:
    return [*(f"{part}," for part in parts[:-1]), *parts[-1:]]
