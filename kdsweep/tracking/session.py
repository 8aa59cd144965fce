"""Logs a sweep to its trackers while it runs, and adds exported students to their runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal
from kdsweep.tracking.base import Tracker
from kdsweep.tracking.feed import Feed
from kdsweep.tracking.section import TrackingSection
from kdsweep.tracking.sent import SentLog

LONGEST_SECONDS = 60.0  # that a sweep waits at its end for all trackers together
INTERRUPTED_SECONDS = 5.0


@contextmanager
def tracked(section: TrackingSection, sweep: SweepDir, goal: Goal, tell: Callable[[str], None]) -> Iterator[None]:
    """Log a sweep to its trackers inside the context. Whatever they do, it neither fails nor waits for long.

    Args:
        section: The trackers.
        sweep: The sweep's directory.
        goal: The objective of the sweep.
        tell: Receives lines for the user.
    """
    feeds = [Feed(tracker, option, sweep, goal, tell) for tracker, option in section.chosen().items()]
    if feeds:
        tell(", ".join(section.described(sweep)))
    for feed in feeds:
        feed.start()
    longest = INTERRUPTED_SECONDS
    try:
        yield
        longest = LONGEST_SECONDS
    finally:
        for feed in feeds:
            feed.stop()
        until = time.monotonic() + longest
        for feed in feeds:
            feed.wait(until)


def attach(
    section: TrackingSection, sweep: SweepDir, goal: Goal, students: Mapping[str, Path], tell: Callable[[str], None]
) -> None:
    """Add exported students to the runs of their trials. Problems are told, not raised.

    Args:
        section: The trackers.
        sweep: The sweep's directory.
        goal: The objective of the sweep.
        students: Folder of each student by the key of its trial.
        tell: Receives a line per tracker.
    """
    for tracker, option in section.chosen().items():
        lines: list[str] = []
        thread = threading.Thread(
            target=_attach, args=(tracker, option, sweep, goal, students, lines.append), daemon=True
        )
        thread.start()
        thread.join(LONGEST_SECONDS)
        for line in lines or ["warning: nothing attached: it does not answer, or is too slow"]:
            tell(f"{tracker.name}: {line}")


def _attach(
    tracker: type[Tracker],
    option: Any,
    sweep: SweepDir,
    goal: Goal,
    students: Mapping[str, Path],
    tell: Callable[[str], None],
) -> None:
    try:
        sent = SentLog(sweep, tracker.name, tracker.identity(option), goal, writable=False)
        ended = {key: folder for key, folder in students.items() if sent[key].state}
        if ended:
            opened = tracker(option, sent.group)
            for key, folder in ended.items():
                opened.attach(sent[key].run, folder)
            opened.close()
            tell(f"attached to the runs of {', '.join(ended)}")
        if missing := ", ".join(students.keys() - ended.keys()):
            tell(f"warning: not attached: no finished run of {missing}; to log it: kdsweep resume {sweep}")
    except BaseException as error:  # of code that is not ours
        tell(f"warning: not attached: {' '.join(str(error).split())[:200] or type(error).__name__}")
