"""Optuna's samplers with its pruners, through `ask`, `report`, `should_prune` and `tell`."""

from __future__ import annotations

import warnings

import optuna
from optuna.trial import TrialState

from kdsweep.search.space import SearchSpace
from replay.workers import Job


def tpe(seed: int, tuned: bool) -> optuna.samplers.TPESampler:
    """Create Optuna's TPE sampler: with its defaults, or multivariate, grouped and aware of running trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        settings = {"multivariate": True, "group": True, "constant_liar": True} if tuned else {}
        return optuna.samplers.TPESampler(seed=seed, **settings)


class OptunaSearch:
    """A study in memory. A pruned trial is told as pruned, a complete one with its best accuracy.

    Args:
        space: The search space; the width is one more parameter.
        epochs: Epochs of a complete trial.
        sampler: The sampler.
        pruner: The pruner.
    """

    def __init__(
        self,
        space: SearchSpace,
        epochs: int,
        sampler: optuna.samplers.BaseSampler,
        pruner: optuna.pruners.BasePruner,
    ):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._epochs = space, epochs
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self._trials: dict[str, optuna.Trial] = {}
        self._best: dict[str, float] = {}

    def ask(self) -> Job | None:
        """Ask for a trial."""
        trial = self._study.ask()
        job = Job(str(trial.number), self._space.suggest(trial))
        self._trials[job.key] = trial
        return job

    def report(self, job: Job, value: float, seconds: float) -> bool:
        """Report an epoch; end the trial if it is complete or pruned."""
        trial = self._trials[job.key]
        trial.report(value, job.epochs)
        self._best[job.key] = max(value, self._best.get(job.key, value))
        if job.epochs == self._epochs:
            self._study.tell(trial, self._best[job.key])
            return False
        if trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
            return False
        return True

    def close(self) -> None:
        """Nothing to release."""
