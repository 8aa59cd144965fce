"""Tells Ray Tune which trials go on, as the study decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from kdsweep.study import State, Study

REPORTED = ("epoch", "train_loss", "val_loss", "val_accuracy", "lr", "seconds", "parameters", "size_mb")


class StudyScheduler(FIFOScheduler):
    """Every epoch of every trial passes here, in the order of arrival.

    Args:
        study: The sweep's memory.
        on_change: Called after each epoch.
    """

    def __init__(self, study: Study, on_change: Callable[[], None]):
        super().__init__()
        self._study = study
        self._on_change = on_change

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Note the epoch; stop a trial that is done, weak or broken."""
        key = trial.config["key"]
        if key not in self._study.running:
            return str(TrialScheduler.STOP)
        decision = self._decide(key, result)
        self._on_change()
        return decision

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
        resources = self._study.spec.resources
        hang = self._study.sweep.trial(key).hang
        if hang.is_file() and hang.stat().st_size:
            return f"an epoch took longer than step_timeout_seconds ({resources.step_timeout_seconds:g})"
        return f"its worker was lost more than {resources.max_failures} times (killed, or out of memory)"

    def _decide(self, key: str, result: dict[str, Any]) -> str:
        study = self._study
        if "storage" in result:
            study.abort = f"the storage fails: {result['storage']}"
            return str(TrialScheduler.STOP)  # not told to the study: the trial goes on when the sweep does
        if "failure" in result:
            study.finish(key, State.FAILED, result["failure"])
            return str(TrialScheduler.STOP)
        weak = False
        if "again" not in result:
            if not math.isfinite(result["val_accuracy"]):
                study.finish(key, State.FAILED, f"val_accuracy is {result['val_accuracy']}")
                return str(TrialScheduler.STOP)
            weak = study.report(key, {name: result[name] for name in REPORTED if name in result})
        if result["epoch"] >= study.spec.train.epochs:
            study.finish(key, State.COMPLETE)
        elif weak:
            study.finish(key, State.PRUNED)
        else:
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing that Ray Tune could restore."""
        return {}
