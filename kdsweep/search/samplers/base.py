"""The base class of samplers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from kdsweep.distributions import Config
from kdsweep.params import Declared, Parts

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from kdsweep.search.space import SearchSpace


class Sampler(Declared):
    """Proposes configurations based on earlier results.

    A subclass declares its parameters as `Param` attributes and returns the Optuna sampler that draws: one of Optuna's
    own, or a subclass of `optuna.samplers.BaseSampler`. A parameter named `startup_trials` takes its value from
    `search.startup_trials` in the sweep file. `kdsweep.testing.SamplerContract` tests these requirements.

    Args:
        params: Values of the declared parameters.

    Attributes:
        several_objectives: Whether it can draw from a study with several objectives.
    """

    kind = "sampler"
    several_objectives: ClassVar[bool] = False

    def drawn_by(self, seed: int) -> BaseSampler:
        """Create the Optuna sampler for one proposal.

        Each proposal gets a new sampler, so that a resumed sweep proposes the same as an uninterrupted one. Its draws
        may depend only on its seed and on the study, which maximises the objective. The study contains the running
        trials, the best and the latest.

        Args:
            seed: 0 to 2**32 - 1, different for each proposal.
        """
        raise NotImplementedError

    def random_trials(self, trials: int) -> int:
        """Number of first trials that are drawn at random, whatever the results. Tuning curves are based on them.

        Args:
            trials: Number of trials of the sweep.
        """
        return 0

    def listed(self, space: SearchSpace) -> Iterator[Config]:
        """Yield all configurations of the sweep in order, or nothing if configurations are drawn instead.

        Raises:
            SpaceError: If the sampler cannot enumerate this space.
        """
        yield from ()


SAMPLERS: Parts[Sampler] = Parts(Sampler, "kdsweep.search.samplers")
