"""The size of a search space."""

from __future__ import annotations

import math

from kdsweep.search.space import SearchSpace


def searched(space: SearchSpace) -> tuple[str, ...]:
    """Return the settings with more than one possible value, sorted."""
    methods = space.methods()
    drawn = {key for method in methods for key, values in space.parameters(method).items() if values.size > 1}
    return tuple(sorted(drawn | ({"method"} if len(methods) > 1 else set())))


def configurations(space: SearchSpace) -> float:
    """Count the distinct configurations. Infinite if a real-valued range is searched."""
    return sum(math.prod(values.size for values in space.parameters(method).values()) for method in space.methods())
