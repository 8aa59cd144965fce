"""Ray Tune's OptunaSearch with its ASHAScheduler: the real objects, called as Ray's controller calls them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kdsweep.search.space import SearchSpace
from replay.workers import Job

METRIC = "val_accuracy"


class RayTuneSearch:
    """Ray Tune with both objects' defaults.

    Args:
        space: The search space, passed as a define-by-run function; the width is one more parameter.
        seed: Seed of the searcher.
        epochs: Epochs of a complete trial.
        settings: Further settings of the scheduler.
    """

    def __init__(self, space: SearchSpace, seed: int, epochs: int, **settings: Any):
        import optuna
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        self._searcher = OptunaSearch(space=space.suggest, metric=METRIC, mode="max", seed=seed)
        self._scheduler = ASHAScheduler(metric=METRIC, mode="max", max_t=epochs, **settings)
        self._trials: dict[str, Any] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    def ask(self) -> Job | None:
        """Ask the searcher for a configuration, and show the trial to the scheduler."""
        key = str(len(self._trials))
        config = self._searcher.suggest(key)
        if config is None:
            return None
        self._trials[key] = SimpleNamespace(trial_id=key, config=config)
        self._scheduler.on_trial_add(None, self._trials[key])
        return Job(key, config)

    def report(self, job: Job, value: float, seconds: float) -> bool:
        """Pass a result on: the scheduler decides, and the searcher learns the last result as the trial's value."""
        result = {METRIC: value, "training_iteration": job.epochs}
        trial = self._trials[job.key]
        if self._scheduler.on_trial_result(None, trial, result) == self._scheduler.CONTINUE:
            self._searcher.on_trial_result(job.key, result)
            return True
        self._scheduler.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(job.key, result)
        return False

    def close(self) -> None:
        """Nothing to release."""
