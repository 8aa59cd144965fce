"""The search: the study proposes trials, receives their epochs and stops them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kdsweep.config.spec import SweepSpec
from kdsweep.errors import SweepError
from kdsweep.results.frames import write_frames
from kdsweep.search.plan import budget_of
from kdsweep.search.study import Study
from kdsweep.search.trial import State
from kdsweep.storage.driver_log import log
from kdsweep.storage.following import fetch
from kdsweep.teacher.build import TeacherCard
from kdsweep.terminal.progress import Progress, SearchStatus
from kdsweep.tune.agenda import Background
from kdsweep.tune.cohorts import CohortRun, Groups, parts_that_train_alone
from kdsweep.tune.work import TrialRun, Work
from kdsweep.words import count_of
from kdsweep.worker.capacity import Probe
from kdsweep.worker.place import WorkerPlace

SAME_FAILURE_LIMIT = 5
# The limit after trials that did not fail. Failures that kdsweep expects of some settings do not count, such as a loss
# that diverges: a grid may have many of them in a row.
IN_A_ROW_LIMIT = 10


class Search:
    """Runs trials until all have finished.

    Args:
        spec: The sweep.
        place: The sweep's paths for workers.
        study: Opens the study.
        card: Returns the teacher's card.
        probe: Returns the measurements of the machine, None if there are none.
        lanes: Returns the number of concurrent trials.
        progress: Receives status updates.
        load: Returns the share of the workers' time that was spent on trials.
    """

    name = "search"

    def __init__(
        self,
        spec: SweepSpec,
        place: Background[WorkerPlace],
        study: Callable[[], Study],
        card: Callable[[], TeacherCard],
        probe: Callable[[], Probe | None],
        lanes: Callable[[], int],
        progress: Progress,
        load: Callable[[], float],
    ):
        self._spec = spec
        self._place = place
        self._open = study
        self._card = card
        self._lanes = lanes
        self._progress = progress
        self._load = load
        self._epochs = 0
        self._alike: list[str] = []
        self._groups = Groups(spec, lanes, probe)
        self._study: Study
        self._frames: Background[None] | None = None

    @property
    def done(self) -> bool:
        """Whether every trial has finished."""
        return self._study.done

    def begin(self) -> None:
        """Open the study, with the trials of earlier sessions."""
        study = self._study = self._open()
        if study.done:
            self._tell_budget()
            return
        unfinished = [*study.running.values(), *study.paused.values()]
        already = sum(len(trial.values) for trial in unfinished)
        *others, last = self._spec.budgets
        budgets = " or ".join([*map(str, others), count_of(last, "epoch")])
        parts = [
            f"{count_of(study.target, 'trial')} of {budgets}",
            self._groups.at_once,
            f"resuming {len(unfinished)} after {count_of(already, 'epoch')}" if unfinished else "",
        ]
        self._progress.phase("search", ", ".join(filter(None, parts)))
        if self._spec.train.capture and (alone := parts_that_train_alone(self._spec)):
            self._progress.phase("search", f"train.capture: steps are not captured with {', '.join(alone)}")
        self._progress.search(self._status())

    def next(self) -> Work | None:
        """Return the next trial or cohort; None while a paused one may be promoted, or if there are no more."""
        if self._study.budget.spent:
            self._requeue(trial.key for trial in self._groups.withdraw())
        trials = self._groups.next(self._study.ask)
        for trial in trials:
            log(logging.INFO, "trial starts", trial=trial.key, epoch=len(trial.values), config=dict(trial.config))
        if len(trials) > 1:
            return CohortRun(self._place.result(), trials)
        if not trials:
            return None
        trial = trials[0]
        work = TrialRun(self._place.result(), trial.key, trial.config)
        return work.lasting(budget_of(self._spec, trial.config), trial.config)

    def on_report(self, work: Work, report: Mapping[str, Any]) -> bool:
        """Record the reported epochs; end the trial if it is complete, pruned or failed."""
        if isinstance(work, CohortRun):
            return self._on_cohort(work, report)
        if work.name not in self._study.running:
            return False
        continues = self._note(work.name, report)
        if continues and self._study.over_budget(work.name):
            self._study.give_back(work.name)
            continues = False
        self._epochs += len(report.get("epochs", ()))
        self._progress.search(self._status())
        self._check()
        return continues

    def give_back(self, work: Work) -> None:
        """Requeue a trial, or those of a cohort, whose lane was lost or has a faster one take over."""
        for key in self._running_in(work):
            if work.moving:
                log(logging.INFO, "trial moves to a faster worker", trial=key)
            else:
                log(logging.WARNING, "trial lost its worker", trial=key)
            self._study.give_back(key)

    def on_lost(self, work: Work) -> None:
        """Mark a trial as failed: it lost its worker too often. Trials of a cohort get a chance of their own."""
        if isinstance(work, CohortRun):
            self._separate(work)
        elif work.name in self._study.running:
            self._fail(work.name, self._loss_reason(work.name), expected=False)
            self._check()

    def close(self) -> None:
        """Sync the logs and write the frames in the background, while lanes start the next stage."""
        self._study.close()
        if self._frames is None:
            self._tell_budget()
        self._frames = Background(lambda: write_frames(self._spec.sweep_dir))

    def finish(self) -> None:
        """Wait until the frames are written.

        Raises:
            OSError: If they cannot be written.
        """
        if self._frames is not None:
            self._frames.result()

    def _running_in(self, work: Work) -> list[str]:
        """Return the trials of a piece of work that have not ended."""
        keys = work.keys if isinstance(work, CohortRun) else [work.name]
        return [key for key in keys if key in self._study.running]

    def _on_cohort(self, work: CohortRun, report: Mapping[str, Any]) -> bool:
        """Record what a cohort reported of each trial. At its end, or if it failed, its trials return to the study."""
        where = {name: report[name] for name in ("node", "device") if name in report}
        failures = dict(report.get("failures", ()))
        for key in self._running_in(work):
            own: dict[str, Any] = dict(where)
            for kind in ("before", "epochs"):
                own[kind] = [_without_trial(row) for row in report.get(kind, ()) if row["trial"] == key]
            if key in failures:
                own |= {"failure": str(failures[key]), "error": failures[key]}
            self._note(key, own)
        self._epochs += len(report.get("epochs", ()))
        left = self._running_in(work)
        ends = "ended" in report or any(map(self._study.over_budget, left))
        if "apart" in report and left:
            self._groups.keep_apart(self._study.running[left[0]])
            self._progress.phase("search", f"trials like {left[0]} train one by one: {report['apart'][0]}")
        if "failure" in report:
            self._separate(work)
        elif ends or "apart" in report:
            self._requeue(left)
            left = []
        self._progress.search(self._status())
        self._check()
        return bool(left) and "failure" not in report

    def _separate(self, work: CohortRun) -> None:
        """Let the trials of a failed cohort go on alone, so that only the one that fails is lost."""
        left = self._running_in(work)
        log(logging.WARNING, "cohort failed; its trials go on alone", trials=left)
        self._groups.separate(left)
        self._requeue(left)

    def _requeue(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._study.give_back(key)

    def _note(self, key: str, report: Mapping[str, Any]) -> bool:
        """Record a report about a trial, in chronological order. Return whether the trial continues."""
        study = self._study
        trial, columns = study.running[key], [goal.column for goal in self._spec.goals]
        where = {name: report[name] for name in ("node", "device") if name in report}
        study.locate(key, where)
        unseen = [metrics for metrics in report.get("before", ()) if metrics["epoch"] > len(trial.values)]
        for metrics in [*unseen, *({**epoch, **where} for epoch in report.get("epochs", ()))]:
            for column in columns:
                if not math.isfinite(metrics[column]):
                    self._fail(key, f"{column} is {metrics[column]}", expected=True)
                    return False
            log(logging.DEBUG, "epoch", trial=key, **metrics)
            if study.report(key, metrics):
                log(logging.INFO, "trial stops at a rung", trial=key, epochs=len(trial.values), best=trial.best)
                self._alike.clear()
                study.leave(key)
                return False
        if "failure" in report:
            self._fail(key, report["failure"], expected="error" in report)
            return False
        if len(trial.values) >= budget_of(self._spec, trial.config):
            self._alike.clear()
            log(logging.INFO, "trial is complete", trial=key, epochs=len(trial.values), best=trial.best, **where)
            study.finish(key, State.COMPLETE)
            return False
        return True

    def _fail(self, key: str, reason: str, expected: bool) -> None:
        """Mark a trial as failed, and note how many of the latest trials failed for the same unexpected reason."""
        if expected or reason not in self._alike:
            self._alike.clear()
        if not expected:
            self._alike.append(reason)
        log(logging.WARNING, "trial failed", trial=key, reason=reason)
        self._study.finish(key, State.FAILED, reason)

    def _tell_budget(self) -> None:
        """Say that the budget has ended the search, and how to continue it."""
        study = self._study
        if study.done and study.budget.spent and study.unfinished:
            paused = f", {count_of(len(study.running), 'trial')} paused" if study.running else ""
            self._progress.phase(
                "search",
                f"the budget is spent: {study.budget.limits()}{paused}; to continue: kdsweep resume "
                f"{study.sweep} --set search.max_epochs=N or search.max_hours=H",
            )

    def _loss_reason(self, key: str) -> str:
        resources = self._spec.resources
        hang = self._study.sweep.trial(key).hang
        fetch(hang)
        if hang.is_file() and hang.stat().st_size:
            return f"an epoch took longer than step_timeout_seconds ({resources.step_timeout_seconds:g})"
        return (
            f"the trial lost its worker more than {count_of(resources.max_failures, 'time')} (killed, or out of memory)"
        )

    def _check(self) -> None:
        """Abort a search in which nothing works.

        Raises:
            SweepError: If all trials failed, or the first or the latest ones all failed with the same error.
        """
        study = self._study
        if len(self._alike) >= IN_A_ROW_LIMIT:
            raise SweepError(f"the latest {len(self._alike)} trials all failed with the same error: {self._alike[0]}")
        failed = study.counts[State.FAILED]
        if study.counts[State.COMPLETE] or study.counts[State.PRUNED] or study.paused or not failed:
            return
        if study.done and not study.running:
            raise SweepError(f"{f'all {failed} trials' if failed > 1 else 'the only trial'} failed: {study.last_error}")
        if failed >= SAME_FAILURE_LIMIT and study.same_error:
            raise SweepError(f"the first {failed} trials all failed with the same error: {study.last_error}")

    def _status(self) -> SearchStatus:
        study = self._study
        return SearchStatus(
            target=study.target,
            running=len(study.running) - study.waiting,
            waiting=study.waiting + len(study.paused),
            complete=study.counts[State.COMPLETE],
            pruned=study.counts[State.PRUNED],
            failed=study.counts[State.FAILED],
            epochs=self._epochs,
            objective=self._spec.goal.column,
            best_value=study.leader.best if study.leader else math.nan,
            best_config=study.leader.config if study.leader else {},
            teacher_value=self._card().measured.get(self._spec.goal.column, math.nan),
            spent=study.budget.share,
            left=study.budget.left(),
            plain_value=study.plain.best if study.plain else math.nan,
            workers=self._lanes(),
            busy=self._load(),
        )


def _without_trial(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name != "trial"}
