"""The stage after the others: measures latency, throughput and memory of the students, when no trial runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kdsweep.config.spec import SweepSpec
from kdsweep.results.frames import load_results, write_frames
from kdsweep.results.from_logs import cost_key
from kdsweep.storage.files import write_json
from kdsweep.terminal.progress import Progress
from kdsweep.tune.agenda import Background
from kdsweep.tune.work import MeasureCosts, Work
from kdsweep.words import count_of
from kdsweep.worker.place import WorkerPlace

MOST_SIZES = 12


class Costs:
    """Measures each distinct student once, from the best trial on, up to 12 sizes, and the teacher.

    A failure is reported and does not end the sweep.

    Args:
        spec: The sweep.
        place: The sweep's paths for workers.
        progress: Receives status updates.
        written: Waits until the search has written its frames.
    """

    name = "costs"

    def __init__(
        self,
        spec: SweepSpec,
        place: Background[WorkerPlace],
        progress: Progress,
        written: Callable[[], None],
    ):
        self._sweep = spec.sweep_dir
        self._place = place
        self._progress = progress
        self._written = written
        self._new = False
        self._work: Work | None = None
        self._total = 0
        self.done = False

    def begin(self) -> None:
        """Choose the students: one configuration for each student, width and method."""
        self._written()
        results = load_results(self._sweep)
        chosen: dict[tuple[Any, ...], str] = {}
        trials = results.best(len(results.trials))
        for row in trials.to_dict("records"):
            *size, method = cost_key(row)
            if len({tuple(size), *(tuple(known) for *known, _ in chosen)}) <= MOST_SIZES:
                chosen.setdefault((*size, method), str(row["trial"]))
        measured = results.trials.set_index("trial").loc[list(chosen.values()), "latency_ms"]
        self.done = bool(measured.notna().all())
        self._total = len(chosen) + 1
        self._work = MeasureCosts(self._place.result(), [results.config(trial) for trial in chosen.values()])
        if not self.done:
            self._tell(0)

    def next(self) -> Work | None:
        """Return the single piece of work."""
        work, self._work = self._work, None
        return work

    def on_report(self, work: Work, report: Mapping[str, Any]) -> bool:
        """Store the measurements."""
        if "failure" in report:
            self._give_up(str(report["failure"]))
        for place in report.get("measuring", ()):
            self._tell(place)
        for measured in report.get("costs", ()):
            write_json(self._sweep.costs, measured)
            self._new = True
            count, where = len(measured["students"]), f"{measured['device']}, {count_of(measured['threads'], 'thread')}"
            self._progress.phase("costs", f"latency and memory of {count_of(count, 'student')} ({where})")
            self.done = True
        return not self.done

    def give_back(self, work: Work) -> None:
        """Requeue the work after its lane was lost."""
        self._work = work

    def on_lost(self, work: Work) -> None:
        """Give up: the work lost its worker too often."""
        self._give_up("it lost its worker too often")

    def close(self) -> None:
        """Write the frames with the measurements."""
        if self._new:
            write_frames(self._sweep)

    def _tell(self, done: int) -> None:
        """Show how many students are measured; one worker does it while the others wait, so that it measures truly."""
        self._progress.counted("costs", done, self._total, "latency and memory, on one worker while the others wait")

    def _give_up(self, reason: str) -> None:
        self._progress.phase("costs", f"not measured: {reason}")
        self.done = True
