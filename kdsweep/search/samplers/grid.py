"""Grid search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kdsweep.distributions import Config
from kdsweep.search.samplers.base import SAMPLERS
from kdsweep.search.samplers.random import Random

if TYPE_CHECKING:
    from kdsweep.search.space import SearchSpace


@SAMPLERS.declare
class Grid(Random):
    """Every combination of the listed values, in the order written."""

    name = "grid"

    def listed(self, space: SearchSpace) -> Iterator[Config]:
        """See `SearchSpace.grid`."""
        return space.grid()

    def random_trials(self, trials: int) -> int:
        return 0
