"""The stages of a sweep, run in order. Does not depend on Ray."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar

from kdsweep.errors import DeviceError, SweepError
from kdsweep.tune.moves import Moves
from kdsweep.tune.timeline import Timeline
from kdsweep.tune.work import Wait, Work

T = TypeVar("T")
# How many workers a piece of work may cost by CUDA errors that a process does not survive.
MOST_BROKEN = 5
# Rate at which waiting lanes poll the driver, summed over all lanes.
LOOKS_PER_SECOND = 20


class End(Enum):
    """How a sweep's work ended."""

    ENDED = "finished"
    INTERRUPTED = "interrupted"
    ABORTED = "aborted"


@dataclass(frozen=True)
class Outcome:
    """How a sweep's work ended, with the reason if it was aborted."""

    end: End
    reason: Exception | None = None


class Stage(Protocol):
    """One stage of a sweep: preparation, search, confirmation or prediction.

    Attributes:
        name: Its name in the timeline.
    """

    name: str

    @property
    def done(self) -> bool:
        """Whether the stage has finished."""

    def begin(self) -> None:
        """Start the stage. All earlier stages have finished."""

    def next(self) -> Work | None:
        """Return work for a free lane, or None if none is available at the moment."""

    def on_report(self, work: Work, report: Mapping[str, Any]) -> bool:
        """Process a report from a lane. Return whether its work continues."""

    def give_back(self, work: Work) -> None:
        """Requeue work whose lane was lost."""

    def on_lost(self, work: Work) -> None:
        """Give up work that lost its worker too often."""

    def close(self) -> None:
        """Write the stage's results, finished or not."""


class Agenda:
    """Hands out the work of the stages in order. Between stages the lanes wait, so that workers stay warm.

    Args:
        stages: The stages; each begins when the previous one is done.
        lanes: Number of concurrent lanes.
        threads: PyTorch threads per lane.
        timeline: Receives the times of the stages.
        note: Receives every report, before its stage does.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        lanes: int,
        threads: int,
        timeline: Timeline,
        note: Callable[[Mapping[str, Any]], None] = lambda report: None,
    ):
        self._stages = list(stages)
        self._lanes = lanes
        self._threads = threads
        self._timeline = timeline
        self._note = note
        self._waits = 0
        self._begun = False
        self._reason: Exception | None = None
        self._waiting_work: Work | None = None
        self._handed_out: dict[str, Work] = {}
        self._for_later: list[Work] = []
        self._broken: Counter[str] = Counter()
        self._moves = Moves()

    @property
    def aborted(self) -> bool:
        """Whether the sweep was aborted."""
        return self._reason is not None

    @property
    def over(self) -> bool:
        """Whether the sweep was aborted, or every stage is done."""
        return self.aborted or not self._stages

    @property
    def outcome(self) -> Outcome:
        """How the sweep ended. Valid once the lanes have stopped."""
        if self._reason is not None:
            return Outcome(End.ABORTED, self._reason)
        return Outcome(End.INTERRUPTED if self._stages else End.ENDED)

    def abort(self, reason: Exception) -> None:
        """Abort the sweep. The first reason is kept."""
        self._reason = self._reason or reason

    def next(self) -> Work | None:
        """Return work for a free lane, or None if everything is done."""
        if (moved := self._moves.taken()) is not None:
            self.give_back(moved)
        work, self._waiting_work = self._waiting_work or self._seek(), None
        return self.wait() if work is None and self._stages else work

    def wait(self) -> Work:
        """Return what a lane does until there is work for it."""
        self._waits += 1
        return Wait(self._waits, max(1, self._lanes) / LOOKS_PER_SECOND, self._threads)

    def resize(self, lanes: int) -> None:
        """Note how many lanes there are, on a cluster that grows and shrinks."""
        self._lanes = lanes
        self._timeline.workers = max(self._timeline.workers, lanes)

    def on_report(self, work: Work, report: Mapping[str, Any]) -> bool:
        """Process a report from a lane. Return whether its work continues."""
        self._note(report)
        if self.aborted:
            return False
        if "storage" in report:
            self.abort(SweepError(f"storage error: {report['storage']}"))
            return False
        if isinstance(report.get("error"), DeviceError):
            self.abort(report["error"])
            return False
        self._moves.note(work, report)
        if isinstance(work, Wait):
            return self._on_wait(work, report)
        if not self._stages:
            return False
        self._timeline.worked(self._stages[0].name, report["seconds"], len(report.get("epochs", ())))
        continues = self._take(work, report)
        if continues and self._moves.leaves(work, report):
            return False
        if not continues:
            self._handed_out.pop(work.name, None)
            self._moves.ended(work)
        return continues

    def give_back(self, work: Work) -> None:
        """Requeue work whose lane was lost."""
        self._handed_out.pop(work.name, None)
        self._moves.ended(work)
        if self._stages and not isinstance(work, Wait):
            self._stages[0].give_back(work)

    def on_lost(self, work: Work) -> None:
        """Give up work that lost its worker too often."""
        self._handed_out.pop(work.name, None)
        self._moves.ended(work)
        if self._stages and not isinstance(work, Wait):
            self._stages[0].on_lost(work)

    def close(self) -> None:
        """Write the results of the current stage, if it has begun."""
        if self._begun and self._stages:
            self._stages[0].close()

    def _on_wait(self, lane: Work, report: Mapping[str, Any]) -> bool:
        """Look for work for a lane that waits. Return whether it waits on."""
        if self._waiting_work is None:
            if (moved := self._moves.taken(report)) is not None:
                self.give_back(moved)
            self._waiting_work = self._seek()
            if self._waiting_work is None and not self._for_later:
                self._moves.ask(lane, report, self._handed_out.values())
        waits = self._waiting_work is None and bool(self._stages)
        if not waits:
            self.leave(lane)
        return waits

    def leave(self, lane: Work) -> None:
        """Note that a lane waits no more."""
        self._moves.ended(lane)

    def _take(self, work: Work, report: Mapping[str, Any]) -> bool:
        """Pass a report to the stage, unless it is a failure that the work may survive elsewhere or later."""
        stage = self._stages[0]
        if "broken" in report:
            self._broken[work.name] += 1
            if self._broken[work.name] <= MOST_BROKEN:
                return True  # in another process
        elif "out_of_memory" in report and not work.alone:
            self._for_later.append(work.by_itself())
            return False
        return stage.on_report(work, report)

    def _seek(self) -> Work | None:
        """Return the next work. Work that ran out of GPU memory is repeated while nothing else runs."""
        if any(work.alone for work in self._handed_out.values()):
            return None
        work = self._next_of_stage()
        if work is None and self._for_later and not self._handed_out:
            work = self._for_later.pop(0)
        if work is not None:
            self._handed_out[work.name] = work
        return work

    def _next_of_stage(self) -> Work | None:
        """Return the stage's next work, moving on to the next stage when the current one is done."""
        while self._stages:
            if not self._begun:
                self._timeline.begin(self._stages[0].name)
                self._stages[0].begin()
                self._begun = True
            if not self._stages[0].done:
                return self._stages[0].next()
            self._stages[0].close()
            self._timeline.end(self._stages.pop(0).name)
            self._begun = False
            self._for_later.clear()  # of a stage whose budget is spent
        return None


class Background(Future[T]):
    """Runs a function in a daemon thread, so that an interrupted driver does not wait for it.

    Args:
        function: The function to run.
    """

    def __init__(self, function: Callable[[], T]):
        super().__init__()
        threading.Thread(target=self._run, args=(function,), daemon=True).start()

    def _run(self, function: Callable[[], T]) -> None:
        try:
            self.set_result(function())
        except BaseException as error:
            self.set_exception(error)
