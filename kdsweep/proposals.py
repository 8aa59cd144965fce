"""Where new configurations come from: Optuna's samplers over the trials that are known.

Proposals are drawn in a study of their own, in memory, and only what is accepted goes into the sweep's journal: a
configuration that was tried already is drawn again without leaving a trace there.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import TrialState

from kdsweep.seeds import derived_seed, digest_of
from kdsweep.space import Config, SearchSpace
from kdsweep.spec import SearchSection

ATTEMPTS = 20


class Proposer:
    """Draws configurations; each draw depends on its number and on what was told before, also after a restart.

    Args:
        search: Which sampler.
        space: What it draws from.
        seed: Of the sweep.
    """

    def __init__(self, search: SearchSection, space: SearchSpace, seed: int):
        self._search = search
        self._space = space
        self._seed = seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="maximize")
        self._open: dict[str, optuna.Trial] = {}
        self._tried: set[str] = set()
        grid = list(space.grid()) if search.sampler == "grid" else []
        points: list[Config] = [dict(point) for point in search.points]
        self._given = points + [config for config in grid if config not in points]
        self.limit = min(search.trials, len(self._given)) if grid else search.trials

    def propose(self, number: int) -> Config:
        """A configuration that was not tried yet, where the space has one.

        Args:
            number: How many were proposed before.
        """
        given = self._given[number] if number < len(self._given) else {}
        for attempt in range(ATTEMPTS):
            trial, config = self._draw(given, number, attempt)
            identity = digest_of(config)
            if identity not in self._tried or attempt == ATTEMPTS - 1:
                break
            self._study.tell(trial, state=TrialState.FAIL)
        self._tried.add(identity)
        self._open[identity] = trial
        return config

    def tell(self, config: Config, state: TrialState, values: Sequence[float]) -> None:
        """Learn how a trial ended.

        Args:
            config: Its configuration.
            state: As Optuna calls it.
            values: The best accuracy after each epoch.
        """
        trial = self._open.pop(digest_of(config), None)
        if trial is None:
            return  # a configuration that was tried twice: Optuna has learnt it
        if values:
            trial.report(values[-1], len(values))
        self._study.tell(trial, values[-1] if state is TrialState.COMPLETE else None, state=state)

    def recall(self, config: Config) -> None:
        """Take up a trial that an earlier session proposed."""
        identity = digest_of(config)
        if identity not in self._tried:
            self._tried.add(identity)
            self._open[identity] = self._draw(config, 0, 0)[0]

    def _draw(self, given: Mapping[str, object], number: int, attempt: int) -> tuple[optuna.Trial, Config]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._sampler(number, attempt)
            if given:
                self._study.enqueue_trial(self._space.optuna_params(dict(given)))  # type: ignore[arg-type]
            trial = self._study.ask()
            return trial, self._space.suggest(trial)

    def _sampler(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        seed = derived_seed(self._seed, "sampler", number, attempt) % 2**32
        # TPE may insist on what it knows to be good; chance finds what is left of a small space.
        if self._search.sampler != "tpe" or attempt > ATTEMPTS // 2:
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=self._search.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
        )
