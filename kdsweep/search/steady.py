"""Optuna's NSGA-II without generations."""

from __future__ import annotations

from optuna import Study
from optuna.samplers import NSGAIISampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kdsweep.search import pareto


class SteadyNSGA2(NSGAIISampler):
    """NSGA-II whose parents are the best finished trials.

    Optuna's counts generations in attributes of trials, which a resumed sweep does not have. Here the parents depend
    only on the results.

    Args:
        population: Number of parents.
        seed: Seed of the draw.
    """

    def __init__(self, population: int, seed: int):
        super().__init__(population_size=population, seed=seed)
        self._wanted = population

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """Return the same generation for every trial."""
        return 1

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Return the best trials by rank, then crowding, then number; none as long as there are too few."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(trials) < self._wanted:
            return []
        signs = [1.0 if direction == StudyDirection.MAXIMIZE else -1.0 for direction in study.directions]
        scores = {
            str(trial.number): [sign * value for sign, value in zip(signs, trial.values, strict=True)]
            for trial in trials
        }
        ranked = sorted(trials, key=lambda trial: (pareto.ahead(scores, str(trial.number)), trial.number))
        return sorted(ranked[: self._wanted], key=lambda trial: trial.number)
