"""The tree-structured Parzen estimator."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from kdsweep.distributions import RandInt
from kdsweep.params import Param
from kdsweep.search.samplers.base import SAMPLERS, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@SAMPLERS.declare
class TPE(Sampler):
    """Optuna's tree-structured Parzen estimator: near the good trials, far from the bad ones.

    It is multivariate and grouped, so it learns which values work well together and which method uses them.

    Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization".
    """

    name = "tpe"
    several_objectives = True
    startup_trials = Param(16, "random trials before it begins", valid=RandInt(0, 1_000_000_000))

    def random_trials(self, trials: int) -> int:
        """Optuna counts finished trials, which are never more than the trials proposed before."""
        return min(trials, self.startup_trials)

    def drawn_by(self, seed: int) -> BaseSampler:
        """Return Optuna's TPE sampler, with a constant liar to keep it away from the running trials."""
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import TPESampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(
                seed=seed,
                n_startup_trials=self.startup_trials,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
