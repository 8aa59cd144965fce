"""Builds pages in a thread when the files of a sweep have changed; meanwhile the previous one is served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import uuid4

from kdsweep.errors import KdsweepError, printable
from kdsweep.storage.paths import SweepDir

T = TypeVar("T")

LEAST_SECONDS = 2.0  # between two builds
REST = 9.0  # times the duration of a build until the next one: building takes at most a tenth of a core

_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="report")


def state_of(sweep: SweepDir) -> str:
    """A text that changes whenever the report of a sweep would change: sizes and times of its files."""
    files = (sweep.spec, sweep.journal, sweep.epochs_log, sweep.teacher_card, sweep.teacher_test, sweep.environment,
             sweep.confirmed_frame, sweep.confirmed)  # fmt: skip
    parts = []
    for file in files:
        try:
            found = file.stat()
        except OSError:
            parts.append("-")
        else:
            parts.append(f"{found.st_size}.{found.st_mtime_ns}")
    return " ".join(parts)


def refresh(sweep: SweepDir) -> None:
    """Fetch what is new of a sweep in an object store; errors are told when the page is built."""
    with suppress(KdsweepError):
        sweep.refresh()


@dataclass(frozen=True)
class Built(Generic[T]):
    """Something that was built from a sweep's files.

    Attributes:
        state: The state of the files.
        version: Differs from that of every other build.
        time: When it was built, in seconds since 1970.
        value: What was built; None if that never worked.
        problem: Why the latest build failed; empty if it did not.
    """

    state: str
    version: str
    time: float
    value: T | None
    problem: str = ""


class Followed(Generic[T]):
    """Something that is built again when the files behind it have changed.

    Args:
        state: Returns the state of the files; must be quick.
        build: Builds it, given its version; may take seconds.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, state: Callable[[], str], build: Callable[[str], T], clock: Callable[[], float] = time.monotonic
    ):
        self._state = state
        self._build = build
        self._clock = clock
        self._built: Built[T] | None = None
        self._next_build = 0.0
        self._task: asyncio.Task[Built[T]] | None = None

    async def latest(self) -> Built[T]:
        """Return the latest build. Only the first call waits for one; later ones start one if it is due."""
        state = await asyncio.to_thread(self._state)
        if self._task is None and self._is_due(state):
            self._task = asyncio.create_task(self._rebuilt(state))
        if self._built is None:
            assert self._task is not None
            return await asyncio.shield(self._task)
        return self._built

    def _is_due(self, state: str) -> bool:
        return self._built is None or (state != self._built.state and self._clock() >= self._next_build)

    async def _rebuilt(self, state: str) -> Built[T]:
        begin, version = self._clock(), uuid4().hex
        value, problem = await asyncio.get_running_loop().run_in_executor(_THREAD, self._try, version)
        before = self._built.value if self._built else None
        self._built = Built(state, version, time.time(), before if problem else value, problem)
        end = self._clock()
        self._next_build = end + max(LEAST_SECONDS, REST * (end - begin))
        self._task = None
        return self._built

    def _try(self, version: str) -> tuple[T | None, str]:
        try:
            return self._build(version), ""
        except (KdsweepError, OSError, ValueError, KeyError) as error:
            # The logs are read while a sweep writes them; the next build may find them whole.
            return None, printable(" ".join(str(error).split())) or type(error).__name__
