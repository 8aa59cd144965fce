"""How much there is to search."""

from __future__ import annotations

import math

from kdsweep.search.space import SearchSpace


def searched(space: SearchSpace) -> tuple[str, ...]:
    """The settings that have more than one value to draw, sorted."""
    methods = space.methods()
    drawn = {key for method in methods for key, values in space.parameters(method).items() if values.size > 1}
    return tuple(sorted(drawn | ({"method"} if len(methods) > 1 else set())))


def configurations(space: SearchSpace) -> float:
    """How many different configurations can be drawn; infinite where a range of real numbers is searched."""
    return sum(math.prod(values.size for values in space.parameters(method).values()) for method in space.methods())
