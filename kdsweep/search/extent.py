"""The size of a search space."""

from __future__ import annotations

import math

from kdsweep.search.space import SearchSpace


def searched(space: SearchSpace) -> tuple[str, ...]:
    """Return the settings with more than one possible value, sorted."""
    methods = space.methods()
    drawn = {key for method in methods for key, values in space.parameters(method).items() if values.size > 1}
    drawn |= {"width"} if any(width.size > 1 for width in space.widths().values()) else set()
    return tuple(sorted(drawn | ({"method"} if len(methods) > 1 else set())))


def configurations(space: SearchSpace) -> float:
    """Count the distinct configurations. Infinite if a real-valued range is searched."""
    sizes = sum(width.size for width in space.widths().values())  # students and their widths
    others = (
        math.prod(values.size for name, values in space.parameters(method).items() if name not in ("student", "width"))
        for method in space.methods()
    )
    return sum(sizes * count for count in others)
