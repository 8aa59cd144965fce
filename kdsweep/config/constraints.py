"""Limits on the size of the student."""

from __future__ import annotations

from kdsweep import models
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import InputError
from kdsweep.models import InputSpec
from kdsweep.search.space import SearchSpace


def within_constraints(spec: SweepSpec, input_spec: InputSpec, num_classes: int) -> SearchSpace:
    """Return the search space without the students that violate a constraint known without measuring.

    `constraints.latency_ms` is applied by a worker, see `kdsweep.worker.latency`.

    Args:
        spec: The sweep.
        input_spec: Input of one sample.
        num_classes: Number of classes.

    Raises:
        InputError: If no student is left.
    """
    limits, students = spec.constraints, spec.students
    if not limits.parameters and not limits.size_mb and not limits.flops:
        return spec.search_space

    def fits(label: str, width: float) -> bool:
        student = students[label]
        built = student.model, input_spec, num_classes, width
        if limits.parameters or limits.size_mb:
            parameters, size_mb = models.count(*built, **student.options)
            if (limits.parameters and parameters > limits.parameters) or (limits.size_mb and size_mb > limits.size_mb):
                return False
        return not limits.flops or models.flops(*built, **student.options) <= limits.flops

    space = spec.search_space.limit_width(fits)
    if space is None:
        widths = {label: width.written() for label, width in spec.search_space.widths().items()}
        wanted = {key: value for key, value in limits.model_dump(exclude={"latency_ms"}).items() if value}
        searched = "; ".join(f"{label or students[label].model} ({width})" for label, width in widths.items())
        raise InputError(f"constraints: no searched width of {searched} satisfies {wanted}")
    return space
