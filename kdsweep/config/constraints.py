"""Limits on the size of the student."""

from __future__ import annotations

from kdsweep import models
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import InputError
from kdsweep.models import InputSpec
from kdsweep.search.space import SearchSpace


def within_constraints(spec: SweepSpec, input_spec: InputSpec, num_classes: int) -> SearchSpace:
    """Return the search space without the widths that violate a constraint.

    Args:
        spec: The sweep.
        input_spec: Input of one sample.
        num_classes: Number of classes.

    Raises:
        InputError: If no width is left.
    """
    limits = spec.constraints
    if not limits.parameters and not limits.size_mb:
        return spec.search_space

    def fits(width: float) -> bool:
        parameters, size_mb = models.count(spec.student.model, input_spec, num_classes, width, **spec.student.options)
        small = not limits.parameters or parameters <= limits.parameters
        return small and (not limits.size_mb or size_mb <= limits.size_mb)

    space = spec.search_space.limit_width(fits)
    if space is None:
        widths = spec.search_space.shared["width"].written()
        wanted = {key: value for key, value in limits.model_dump().items() if value}
        raise InputError(f"constraints: no searched width of {spec.student.model} ({widths}) satisfies {wanted}")
    return space
