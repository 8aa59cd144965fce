"""Syne Tune's schedulers, called as its tuner calls them.

Needs `pip install "syne-tune>=0.16" scikit-learn xgboost statsmodels`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from kdsweep.distributions import Choice, Config, Distribution, LogUniform, Range
from kdsweep.search.space import SearchSpace
from replay.workers import Job

METRIC, EPOCH = "val_accuracy", "epoch"


class SyneTuneSearch:
    """A scheduler of Syne Tune with its defaults.

    Args:
        space: The search space. Syne Tune's spaces are flat: every trial has every setting, and those that its method
            does not use have no effect. The width is one more setting.
        create: Creates the scheduler from a space of Syne Tune and the metric.
        epochs: Epochs of a complete trial.
    """

    def __init__(self, space: SearchSpace, create: Callable[[dict[str, Any], str], Any], epochs: int):
        self._space, self._epochs = space, epochs
        known = {name: d for method in space.methods() for name, d in space.parameters(method).items()}
        self._scheduler = create({name: _domain(d) for name, d in {"method": space.method, **known}.items()}, METRIC)
        self._trials: dict[str, Any] = {}

    def ask(self) -> Job | None:
        """Ask for a trial."""
        from syne_tune.backend.trial_status import Trial

        suggestion = self._scheduler.suggest()
        if suggestion is None:
            return None
        number = len(self._trials)
        trial = Trial(trial_id=number, config=suggestion.config, creation_time=datetime.datetime.min)
        self._trials[str(number)] = trial
        self._scheduler.on_trial_add(trial)
        return Job(str(number), self._used(suggestion.config))

    def report(self, job: Job, value: float, seconds: float) -> bool:
        """Report an epoch; end the trial if it is complete or stopped."""
        trial, result = self._trials[job.key], {METRIC: value, EPOCH: job.epochs}
        decision = self._scheduler.on_trial_result(trial, result)
        if job.epochs == self._epochs and decision == "CONTINUE":
            self._scheduler.on_trial_complete(trial, result)
            return False
        if decision != "CONTINUE":
            self._scheduler.on_trial_remove(trial)
            return False
        return True

    def close(self) -> None:
        """Nothing to release."""

    def _used(self, flat: dict[str, Any]) -> Config:
        names = ["method", *self._space.parameters(flat["method"])]
        return {name: flat[name] if isinstance(flat[name], str) else float(flat[name]) for name in names}


def scheduler(name: str, seed: int, epochs: int) -> Callable[[dict[str, Any], str], Any]:
    """Return what creates a scheduler of Syne Tune by its class name."""

    def create(space: dict[str, Any], metric: str) -> Any:
        from syne_tune.optimizer import baselines

        rungs = {} if name == "CQR" else {"time_attr": EPOCH, "max_t": epochs}
        return getattr(baselines, name)(space, metric, do_minimize=False, random_seed=seed, **rungs)

    return create


def _domain(distribution: Distribution) -> Any:
    from syne_tune import config_space

    if isinstance(distribution, Choice):
        return config_space.choice(list(distribution.values))
    assert isinstance(distribution, Range)
    make = config_space.loguniform if isinstance(distribution, LogUniform) else config_space.uniform
    return make(float(distribution.low), float(distribution.high))
