"""Random search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsweep.search.samplers.base import SAMPLERS, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@SAMPLERS.declare
class Random(Sampler):
    """Random search: draws every value at random."""

    name = "random"
    several_objectives = True

    def drawn_by(self, seed: int) -> BaseSampler:
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)

    def random_trials(self, trials: int) -> int:
        return trials
