"""The search: the study proposes trials, receives their epochs and stops them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from kdsweep.config.spec import SweepSpec
from kdsweep.errors import SweepError
from kdsweep.results.frames import write_frames
from kdsweep.search.study import State, Study
from kdsweep.teacher.build import TeacherCard
from kdsweep.terminal.progress import Progress, SearchStatus
from kdsweep.tune.agenda import Background
from kdsweep.tune.work import TrialRun, Work
from kdsweep.worker.place import WorkerPlace

SAME_FAILURE_LIMIT = 5


class Search:
    """Run trials until every one has ended.

    Args:
        spec: The sweep.
        place: Where a worker finds it.
        study: Opens the sweep's memory.
        card: Tells of the teacher.
        lanes: Trials at a time.
        progress: Receives status updates.
    """

    def __init__(
        self,
        spec: SweepSpec,
        place: Background[WorkerPlace],
        study: Callable[[], Study],
        card: Callable[[], TeacherCard],
        lanes: int,
        progress: Progress,
    ):
        self._spec = spec
        self._place = place
        self._open = study
        self._card = card
        self._lanes = lanes
        self._progress = progress
        self._epochs = 0
        self._study: Study
        self._frames: Background[None] | None = None

    @property
    def done(self) -> bool:
        """Whether every trial has ended."""
        return self._study.done

    def begin(self) -> None:
        """Open the study, which knows what an earlier session did."""
        study = self._study = self._open()
        if study.done:
            return
        already = sum(len(trial.values) for trial in study.running.values())
        self._progress.phase(
            "search",
            f"{study.target} trials of {self._spec.train.epochs} epochs, {self._lanes} at a time"
            + (f", going on with {len(study.running)} after {already} epochs" if study.running else ""),
        )
        self._progress.search(self._status())

    def next(self) -> Work | None:
        """The next trial."""
        trial = self._study.ask()
        return TrialRun(self._place.result(), trial.key, trial.config) if trial else None

    def heard(self, work: Work, told: Mapping[str, Any]) -> bool:
        """Note the epochs; end a trial that is done, weak or broken."""
        if work.name not in self._study.running:
            return False
        goes_on = self._note(work.name, told)
        self._epochs += len(told.get("epochs", ()))
        self._progress.search(self._status())
        self._check()
        return goes_on

    def give_back(self, work: Work) -> None:
        """Have a trial asked for again."""
        if work.name in self._study.running:
            self._study.give_back(work.name)

    def lost(self, work: Work) -> None:
        """The trial failed."""
        if work.name in self._study.running:
            self._study.finish(work.name, State.FAILED, self._loss(work.name))
            self._check()

    def close(self) -> None:
        """Sync the logs; write the frames, while lanes already do what comes next."""
        self._study.close()
        self._frames = Background(lambda: write_frames(self._spec.sweep_dir))

    def finish(self) -> None:
        """Wait for the frames.

        Raises:
            OSError: If they cannot be written.
            SweepError: If every trial failed.
        """
        if self._frames is not None:
            self._frames.result()

    def _note(self, key: str, told: Mapping[str, Any]) -> bool:
        """Take what a lane told of a trial, in the order of time; says whether the trial goes on."""
        study = self._study
        trial, goal = study.running[key], self._spec.goal
        unheard = [metrics for metrics in told.get("before", ()) if metrics["epoch"] > len(trial.values)]
        for metrics in [*unheard, *told.get("epochs", ())]:
            if not math.isfinite(metrics[goal.column]):
                study.finish(key, State.FAILED, f"{goal.column} is {metrics[goal.column]}")
                return False
            if study.report(key, metrics):
                study.finish(key, State.PRUNED)
                return False
        if "failure" in told:
            study.finish(key, State.FAILED, told["failure"])
            return False
        if len(trial.values) >= self._spec.train.epochs:
            study.finish(key, State.COMPLETE)
            return False
        return True

    def _loss(self, key: str) -> str:
        resources = self._spec.resources
        hang = self._study.sweep.trial(key).hang
        if hang.is_file() and hang.stat().st_size:
            return f"an epoch took longer than step_timeout_seconds ({resources.step_timeout_seconds:g})"
        return f"its worker was lost more than {resources.max_failures} times (killed, or out of memory)"

    def _check(self) -> None:
        """Stop a hopeless search.

        Raises:
            SweepError: If the first trials all failed alike, or all trials failed.
        """
        study = self._study
        failed = study.counts[State.FAILED]
        if study.counts[State.COMPLETE] or study.counts[State.PRUNED] or not failed:
            return
        if study.done:
            raise SweepError(f"all {failed} trials failed: {study.last_error}")
        if failed >= SAME_FAILURE_LIMIT and study.same_error:
            raise SweepError(f"the first {failed} trials all failed alike: {study.last_error}")

    def _status(self) -> SearchStatus:
        """The present state."""
        study = self._study
        return SearchStatus(
            target=study.target,
            running=len(study.running),
            complete=study.counts[State.COMPLETE],
            pruned=study.counts[State.PRUNED],
            failed=study.counts[State.FAILED],
            epochs=self._epochs,
            objective=self._spec.goal.column,
            best_value=study.leader.best if study.leader else math.nan,
            best_config=study.leader.config if study.leader else {},
            teacher_value=self._card().measured.get(self._spec.goal.column, math.nan),
        )
