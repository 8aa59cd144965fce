"""Measures how many students of one shape train fastest as one cohort."""

from __future__ import annotations

from collections.abc import Sequence

from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.distributions import Config
from kdsweep.errors import KdsweepError, SweepError
from kdsweep.search.space import extent
from kdsweep.training.cohort import Cohort
from kdsweep.training.grouping import cohort_key
from kdsweep.worker import gpu
from kdsweep.worker.capacity import FASTER, Pace
from kdsweep.worker.short_runs import SECONDS, short_together, steps_of, timed
from kdsweep.worker.workbench import Workbench

COHORTS = (1, 4, 16, 64)


def measured_paces(spec: SweepSpec, bench: Workbench, largest: Sequence[Config]) -> list[Pace]:
    """Measure cohorts of the narrowest and the widest students, and of those in the middle.

    Args:
        spec: The sweep.
        bench: Its workbench.
        largest: The plain configuration of each student.

    Raises:
        SweepError: If this process can use the GPU no more. Another one measures again.
    """
    found = []
    for plain in largest:
        label = str(plain.get("student", ""))
        widths = sorted(extent(spec.search_space.widths()[label]))
        for width in sorted({widths[0], widths[len(widths) // 2], widths[-1]}):
            config = stackable(spec, {**plain, "width": width})
            step_ms = _step_ms(spec, bench, config) if config else {}
            if step_ms:
                found.append(Pace(label, width, step_ms))
    return found


def stackable(spec: SweepSpec, plain: Config) -> Config | None:
    """Return a configuration with a method that trains in cohorts, kd if it is searched; None if there is none."""
    methods = spec.search_space.methods()
    for method in sorted(methods, key=lambda method: (method != "kd", method == "none", methods.index(method))):
        alpha: Config = {"alpha": 0.5} if method != "none" else {}
        config = {**plain, "method": method, **alpha}
        if cohort_key(trial_recipe(spec, config, seed=0)) is not None:
            return config
    return None


def _step_ms(spec: SweepSpec, bench: Workbench, config: Config) -> dict[str, float]:
    """Return milliseconds per step of one trial, by the number of trials; empty if the student cannot be stacked.

    Ends at the first number that is no faster than the fastest before it: larger ones are not either.
    """
    found: dict[str, float] = {}
    for size in COHORTS:
        gpu.release()
        try:
            milliseconds = _best_ms(spec, bench, config, size)
        except (KdsweepError, RuntimeError) as error:
            if fault := gpu.fault():
                raise SweepError(f"a cohort of {size} breaks the GPU: {fault}") from None
            return found if gpu.ran_out_of_memory(error) else {}
        slower = bool(found) and FASTER * milliseconds > min(found.values())
        found[str(size)] = milliseconds
        if slower:
            break
    return found


def _best_ms(spec: SweepSpec, bench: Workbench, config: Config, size: int) -> float:
    training = short_together(spec, bench, config, bench.val.first(2), size)
    first = timed(training)  # with what is done once
    seconds = [timed(training) for _ in range(min(10, max(2, int(SECONDS / first))))]
    if isinstance(training, Cohort):
        training.close()
    return round(1000 * min(seconds) / steps_of(spec, bench, config) / size, 3)
