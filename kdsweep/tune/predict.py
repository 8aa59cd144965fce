"""The last stage: predicts the test split for the report, once the best students are confirmed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdsweep.results.frames import load_results
from kdsweep.results.predictor import wanted
from kdsweep.storage.paths import SweepDir
from kdsweep.terminal.progress import Progress
from kdsweep.tune.agenda import Background
from kdsweep.tune.work import Predict, Work
from kdsweep.worker.place import WorkerPlace


class Prediction:
    """Makes the predictions if they are missing or outdated. Whatever goes wrong, the sweep has its results.

    Args:
        sweep: The sweep's directory.
        place: The sweep's paths for workers.
        progress: Receives status updates.
    """

    name = "predict"

    def __init__(self, sweep: SweepDir, place: Background[WorkerPlace], progress: Progress):
        self._sweep = sweep
        self._place = place
        self._progress = progress
        self._waiting: list[Work] = []
        self.done = False

    def begin(self) -> None:
        """Find out whether there is anything to predict."""
        self.done = not wanted(load_results(self._sweep))
        if not self.done:
            self._progress.phase("predict", "the best students and the teacher, on the test split")
            self._waiting = [Predict(self._place.result())]

    def next(self) -> Work | None:
        """Return the single piece of work."""
        return self._waiting.pop(0) if self._waiting else None

    def on_report(self, work: Work, report: Mapping[str, Any]) -> bool:
        """Finish, with a warning if the predictions could not be made."""
        reasons = [*report.get("predicted", ()), *([report["failure"]] if "failure" in report else [])]
        for reason in filter(None, reasons):
            self._warn(reason)
        self.done = self.done or bool(reasons)
        return not self.done

    def give_back(self, work: Work) -> None:
        """Requeue the work after its lane was lost."""
        self._waiting.append(work)

    def on_lost(self, work: Work) -> None:
        """Give up: the work lost its worker too often."""
        self._warn("the worker was lost too often (killed, or out of memory)")
        self.done = True

    def close(self) -> None:
        """Do nothing: the lane has written the file."""

    def _warn(self, reason: str) -> None:
        self._progress.phase(
            "predict", f"warning: test split not predicted: {reason}; to try again: kdsweep report {self._sweep}"
        )
