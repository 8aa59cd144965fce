"""Runs an agenda on a cluster. Ray Tune manages the lanes and restarts lost ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.widgets.util import in_notebook

from kdsweep.errors import SweepError
from kdsweep.tune.agenda import Agenda, Outcome
from kdsweep.tune.cluster import Share
from kdsweep.tune.failures import start_failure
from kdsweep.tune.growth import Lanes, lanes_of
from kdsweep.tune.trainable import Lane
from kdsweep.tune.work import Wait, Work

T = TypeVar("T")


def run_lanes(agenda: Agenda, part: Share, max_failures: int, scratch: Path, objects: bytes) -> Outcome:
    """Run an agenda to its end.

    Args:
        agenda: The work to do.
        part: Resources per lane and number of lanes.
        max_failures: How often a piece of work may lose its worker and continue on another.
        scratch: Directory for Ray Tune's files; not needed afterwards.
        objects: The Python objects of the sweep, which Ray keeps in memory; may be empty.

    Returns:
        How the agenda ended. An exception within the agenda aborts it.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(part.most)
    lanes = lanes_of(agenda, part)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(Lane, objects=objects) if objects else Lane, part.resources),
        tune_config=tune.TuneConfig(
            search_alg=LaneSearcher(agenda, lanes),
            scheduler=LaneScheduler(agenda, lanes),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="lanes",
            storage_path=str(scratch),
            stop=AgendaStopper(agenda),
            failure_config=tune.FailureConfig(max_failures=max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
            # In a notebook, Tune would replace kdsweep's own output by its table of lanes.
            progress_reporter=Untold() if in_notebook() else None,
        ),
    )
    try:
        tuner.fit()
    finally:
        agenda.close()
    return agenda.outcome


class Untold(tune.ProgressReporter):
    """Reports nothing: kdsweep shows its own progress."""

    def should_report(self, trials: list[TuneTrial], done: bool = False) -> bool:
        """Return False."""
        return False


class AgendaStopper(tune.Stopper):
    """Stops all lanes once the agenda is aborted or done, also those that never got a place on a node."""

    def __init__(self, agenda: Agenda):
        self._agenda = agenda

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: the scheduler stops single trials."""
        return False

    def stop_all(self) -> bool:
        """Whether the agenda is aborted or done."""
        return self._agenda.over

    def __getstate__(self) -> dict[str, Any]:
        """Return no state: Ray Tune never restores one."""
        return {}


class LaneSearcher(Searcher):
    """Hands the agenda's work to Ray Tune.

    Args:
        agenda: The work to do.
        lanes: The lanes that do it.
    """

    def __init__(self, agenda: Agenda, lanes: Lanes):
        super().__init__()
        self._agenda = agenda
        self._lanes = lanes

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return the next work, None while all lanes are busy, or FINISHED at the end."""
        if not self._lanes.may_begin():
            return None
        work = _guarded(self._agenda, lambda: self._lanes.begin(trial_id), None)
        return Searcher.FINISHED if work is None else {"work": work}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Mark the lane as free."""
        self._lanes.end(trial_id, lost=error)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: state is kept in the sweep directory."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: state is kept in the sweep directory."""

    def __getstate__(self) -> dict[str, Any]:
        """Return no state: Ray Tune never restores one."""
        return {}


class LaneScheduler(FIFOScheduler):
    """Passes reports from the lanes to the agenda, and tells Ray Tune which work continues.

    Args:
        agenda: The work to do.
        lanes: The lanes that do it.
    """

    def __init__(self, agenda: Agenda, lanes: Lanes):
        super().__init__()
        self._agenda = agenda
        self._lanes = lanes

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Pass a lane's report to the agenda, in order of arrival."""
        continues = _guarded(self._agenda, lambda: self._agenda.on_report(_work(trial), result), False)
        if isinstance(_work(trial), Wait):
            # Work that lost its node waits for the place of another lane, which must not wait for that work.
            continues = continues and all(isinstance(_work(one), Wait) for one in _pending(tune_controller))
            if not continues:
                self._agenda.leave(_work(trial))
        return str(TrialScheduler.CONTINUE if continues else TrialScheduler.STOP)

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Return the next pending trial. Lanes that wait for a place without need are given up."""
        waiting = _pending(tune_controller)
        running = {trial.trial_id: _work(trial) for trial in _live(tune_controller, TuneTrial.RUNNING)}
        needless = self._lanes.look(running, [trial.trial_id for trial in waiting])
        for trial in [trial for trial in waiting if isinstance(_work(trial), Wait)][:needless]:
            waiting.remove(trial)
            tune_controller.stop_trial(trial)
        return min(waiting, key=lambda trial: (isinstance(_work(trial), Wait), _work(trial).name), default=None)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Handle a lost lane. Ray Tune restarts its work, except in the two cases below."""
        if trial.status == TuneTrial.PENDING:
            # The lane was lost while switching work. Ray Tune counts that failure twice and would give up.
            _guarded(self._agenda, lambda: self._agenda.give_back(_work(trial)), None)
        elif not trial.should_recover():
            if reason := start_failure(_failures(trial)):
                self._agenda.abort(SweepError(reason))
            _guarded(self._agenda, lambda: self._agenda.on_lost(_work(trial)), None)

    def __getstate__(self) -> dict[str, Any]:
        """Return no state: Ray Tune never restores one."""
        return {}


def _pending(tune_controller: Any) -> list[TuneTrial]:
    """Return the work that no worker has."""
    return _live(tune_controller, TuneTrial.PENDING)


def _live(tune_controller: Any, status: str) -> list[TuneTrial]:
    """Return the work of a status, among the live trials, whose number does not grow with the sweep."""
    return [trial for trial in tune_controller.get_live_trials() if trial.status == status]


def _guarded(agenda: Agenda, call: Callable[[], T], otherwise: T) -> T:
    """Call the agenda. An exception aborts the agenda instead of passing through Ray Tune, which would reword it."""
    try:
        return call()
    except Exception as error:
        agenda.abort(error)
        return otherwise


def _work(trial: TuneTrial) -> Work:
    work: Work = trial.config["work"]
    return work


def _failures(trial: TuneTrial) -> str:
    """Return what Ray Tune has logged about the failures of a trial; `Trial.get_error` lags behind."""
    try:
        return Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
    except OSError:
        return ""


def _name(trial: TuneTrial) -> str:
    return _work(trial).name
