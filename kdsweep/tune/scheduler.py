"""Tells Ray Tune which trials go on, as the study decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from kdsweep.config.spec import ResourcesSection
from kdsweep.search.study import State, Study


class StudyScheduler(FIFOScheduler):
    """Every epoch of every trial passes here, in the order of arrival.

    Args:
        study: The sweep's memory.
        resources: What a trial takes, and how often it may be lost.
        on_change: Called after each answer of a worker, with the number of its epochs.
    """

    def __init__(self, study: Study, resources: ResourcesSection, on_change: Callable[[int], None]):
        super().__init__()
        self._study = study
        self._resources = resources
        self._on_change = on_change

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Note the epochs; stop a trial that is done, weak or broken."""
        key = trial.config["key"]
        if key not in self._study.running:
            return str(TrialScheduler.STOP)
        goes_on = self._goes_on(key, result)
        self._on_change(len(result["epochs"]))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """The next that waits, sought among those that have not ended: their number does not grow with the sweep."""
        waiting = [trial for trial in tune_controller.get_live_trials() if trial.status == TuneTrial.PENDING]
        return min(waiting, key=lambda trial: str(trial.config["key"]), default=None)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """A trial's worker was lost. Ray Tune starts the trial again, but for two cases."""
        key = trial.config["key"]
        if key not in self._study.running:
            return
        if trial.status == TuneTrial.PENDING:
            # Lost while it changed from one trial to the next: Ray Tune hears of that twice, and gives the trial up.
            self._study.give_back(key)
        elif not trial.should_recover():
            self._study.finish(key, State.FAILED, self._loss(key))

    def _loss(self, key: str) -> str:
        resources = self._resources
        hang = self._study.sweep.trial(key).hang
        if hang.is_file() and hang.stat().st_size:
            return f"an epoch took longer than step_timeout_seconds ({resources.step_timeout_seconds:g})"
        return f"its worker was lost more than {resources.max_failures} times (killed, or out of memory)"

    def _goes_on(self, key: str, result: dict[str, Any]) -> bool:
        """Take what a worker told, in the order of time."""
        study = self._study
        trial = study.running[key]
        unheard = [metrics for metrics in result.get("before", ()) if metrics["epoch"] > len(trial.values)]
        for metrics in [*unheard, *result["epochs"]]:
            objective = study.spec.goal.column
            if not math.isfinite(metrics[objective]):
                study.finish(key, State.FAILED, f"{objective} is {metrics[objective]}")
                return False
            if study.report(key, metrics):
                study.finish(key, State.PRUNED)
                return False
        if "storage" in result:
            study.abort = f"the storage fails: {result['storage']}"
            return False  # not told to the study: the trial goes on when the sweep does
        if "failure" in result:
            study.finish(key, State.FAILED, result["failure"])
            return False
        if len(trial.values) >= study.spec.train.epochs:
            study.finish(key, State.COMPLETE)
            return False
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Nothing that Ray Tune could restore."""
        return {}
