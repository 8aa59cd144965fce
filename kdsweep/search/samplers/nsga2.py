"""NSGA-II."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsweep.distributions import RandInt
from kdsweep.params import Param
from kdsweep.search.samplers.base import SAMPLERS, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@SAMPLERS.declare
class NSGA2(Sampler):
    """NSGA-II: crosses and mutates the best trials; for several objectives.

    Parents are the best `population` of the finished trials by rank and crowding, so there is no waiting for the end of
    a generation. Until there are as many, trials are drawn at random. Only settings that all methods have are crossed.

    Deb et al. 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II".
    """

    name = "nsga2"
    several_objectives = True
    population = Param(16, "number of parents, and of random trials before it begins", valid=RandInt(2, 200))

    def random_trials(self, trials: int) -> int:
        return min(trials, self.population)

    def drawn_by(self, seed: int) -> BaseSampler:
        from kdsweep.search.steady import SteadyNSGA2

        return SteadyNSGA2(self.population, seed)
