"""The stages of a sweep, in order, and how they ended. Knows nothing of Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar

from kdsweep.errors import DeviceError, SweepError
from kdsweep.tune.work import Wait, Work

T = TypeVar("T")
# How often waiting lanes ask the driver, all lanes together.
LOOKS_PER_SECOND = 20


class End(Enum):
    """How a sweep's work ended."""

    ENDED = "everything was done"
    INTERRUPTED = "it was asked to stop"
    ABORTED = "it cannot go on"


@dataclass(frozen=True)
class Outcome:
    """How a sweep's work ended, and why if it was aborted."""

    end: End
    reason: Exception | None = None


class Stage(Protocol):
    """A part of a sweep: preparation, search, confirmation."""

    @property
    def done(self) -> bool:
        """Whether all its work has ended."""

    def begin(self) -> None:
        """The stages before have ended."""

    def next(self) -> Work | None:
        """Work for a lane; None if there is none just now."""

    def heard(self, work: Work, told: Mapping[str, Any]) -> bool:
        """Take what a lane told; says whether the work goes on."""

    def give_back(self, work: Work) -> None:
        """Have work handed out again that no lane does any more."""

    def lost(self, work: Work) -> None:
        """The workers that did it were lost too often."""

    def close(self) -> None:
        """Write what is to be kept, ended or not."""


class Agenda:
    """Hands out the work of one stage after the other. Between stages the lanes wait, so that no worker is released.

    Args:
        stages: In order; each begins when the one before is done.
        lanes: Pieces of work at a time.
        threads: Of PyTorch in a lane.
    """

    def __init__(self, stages: Sequence[Stage], lanes: int, threads: int):
        self._stages = list(stages)
        self._lanes = lanes
        self._threads = threads
        self._waits = 0
        self._begun = False
        self._reason: Exception | None = None
        self._waiting_work: Work | None = None

    @property
    def aborted(self) -> bool:
        """Whether the sweep must stop."""
        return self._reason is not None

    @property
    def outcome(self) -> Outcome:
        """How it ended, once the lanes have stopped."""
        if self._reason is not None:
            return Outcome(End.ABORTED, self._reason)
        return Outcome(End.INTERRUPTED if self._stages else End.ENDED)

    def abort(self, reason: Exception) -> None:
        """Stop the sweep; the first reason counts."""
        self._reason = self._reason or reason

    def next(self) -> Work | None:
        """Work for a free lane; None if everything is done."""
        work, self._waiting_work = self._waiting_work or self._seek(), None
        if work is None and self._stages:
            self._waits += 1
            work = Wait(self._waits, max(1, self._lanes) / LOOKS_PER_SECOND, self._threads)
        return work

    def heard(self, work: Work, told: Mapping[str, Any]) -> bool:
        """Take what a lane told; says whether its work goes on."""
        if self.aborted:
            return False
        if "storage" in told:
            self.abort(SweepError(f"the storage fails: {told['storage']}"))
            return False
        if isinstance(told.get("error"), DeviceError):
            self.abort(told["error"])
            return False
        if isinstance(work, Wait):
            if self._waiting_work is None:
                self._waiting_work = self._seek()
            return self._waiting_work is None and bool(self._stages)
        return bool(self._stages) and self._stages[0].heard(work, told)

    def give_back(self, work: Work) -> None:
        """Have work handed out again."""
        if self._stages and not isinstance(work, Wait):
            self._stages[0].give_back(work)

    def lost(self, work: Work) -> None:
        """The workers that did it were lost too often."""
        if self._stages and not isinstance(work, Wait):
            self._stages[0].lost(work)

    def close(self) -> None:
        """Let the stage that was under way write what is to be kept."""
        if self._begun and self._stages:
            self._stages[0].close()

    def _seek(self) -> Work | None:
        """The next work of the stage under way, or of the next one if that is done."""
        while self._stages:
            if not self._begun:
                self._stages[0].begin()
                self._begun = True
            if not self._stages[0].done:
                return self._stages[0].next()
            self._stages[0].close()
            self._stages.pop(0)
            self._begun = False
        return None


class Background(Future[T]):
    """A function that runs in a daemon thread, so that an interrupted driver does not wait for it.

    Args:
        function: What is done.
    """

    def __init__(self, function: Callable[[], T]):
        super().__init__()
        threading.Thread(target=self._run, args=(function,), daemon=True).start()

    def _run(self, function: Callable[[], T]) -> None:
        try:
            self.set_result(function())
        except BaseException as error:
            self.set_exception(error)
