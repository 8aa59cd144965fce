"""The contract of a sampler: how the next configuration is proposed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kdsweep.distributions import Config
from kdsweep.params import Declared, Parts

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from kdsweep.search.section import SearchSection
    from kdsweep.search.space import SearchSpace


class Sampler(Declared):
    """Proposes configurations by what became of those before.

    A subclass declares its parameters as `Param` attributes and gives the Optuna sampler that draws: one of Optuna's
    own, or a subclass of `optuna.samplers.BaseSampler`. A parameter called `startup_trials` gets the value of this key
    of a sweep file's `search`. `kdsweep.testing.SamplerContract` checks what is asked here.

    Args:
        params: Values of the declared parameters.
    """

    kind = "sampler"

    def drawn_by(self, seed: int) -> BaseSampler:
        """The Optuna sampler of one proposal.

        It is made anew for each, so that a resumed sweep proposes what an uninterrupted one would have: what it draws
        may depend only on its seed and on the study, whose objective is maximised. The study holds the running trials,
        the best and the latest.

        Args:
            seed: 0 to 2**32 - 1, another for each proposal.
        """
        raise NotImplementedError

    def listed(self, space: SearchSpace) -> Iterator[Config]:
        """The configurations to try in this order, after which the sweep ends; nothing where all are drawn.

        Raises:
            SpaceError: If it cannot list this space.
        """
        yield from ()


SAMPLERS: Parts[Sampler] = Parts(Sampler, "kdsweep.search.samplers")


def sampler_of(search: SearchSection) -> Sampler:
    """The sampler of a sweep."""
    name, params = search.part(SAMPLERS, search.sampler)
    return SAMPLERS.create(name, **params)
