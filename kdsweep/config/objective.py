"""Checks of the metrics that a sweep file names: the objective and further ones."""

from __future__ import annotations

from collections.abc import Iterator

from kdsweep import tasks
from kdsweep.config.spec import SweepSpec
from kdsweep.config.yaml import Keys
from kdsweep.errors import InputError
from kdsweep.registry import is_user_object
from kdsweep.tasks import Goal, Task
from kdsweep.tasks.metrics.totals import fault


def objective_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    """Yield faults in the names and directions of metrics, as (path, message)."""
    try:
        task = tasks.of(spec.dataset)
    except InputError:
        return  # reported as a fault of the data set
    section = spec.objective
    try:
        metric = task.metric(section.metric)
    except InputError as error:
        yield ("objective", "metric"), str(error)
    else:
        if section.mode not in ("auto", metric.mode):
            message = f"found {section.mode!r}; accepted: {metric.mode!r}, which is best for {section.metric}"
            yield ("objective", "mode"), message
    yield from _further_faults(spec, task)


def _further_faults(spec: SweepSpec, task: Task) -> Iterator[tuple[Keys, str]]:
    """Yield faults in the key `metrics`."""
    known = {*task.always, Goal(spec.objective.metric).name}
    for index, written in enumerate(spec.metrics):
        try:
            task.metric(written)
        except InputError as error:
            yield ("metrics", index), str(error)
            continue
        goal = Goal(written)
        if goal.name in known:
            message = f"found {written!r}; accepted: a metric of another name, because {goal.column} is measured anyway"
            yield ("metrics", index), message
        known.add(goal.name)


def metric_faults(spec: SweepSpec, num_classes: int) -> Iterator[tuple[Keys, str]]:
    """Yield metrics that need more classes, and the user's own metrics that fail on random logits."""
    task = tasks.of(spec.dataset)
    written: dict[Keys, str] = {("objective", "metric"): spec.objective.metric}
    written |= {("metrics", index): name for index, name in enumerate(spec.metrics)}
    for keys, name in written.items():
        metric = task.metric(name)
        if num_classes < metric.least_classes:
            accepted = f"a metric for {num_classes} classes; this one needs at least {metric.least_classes}"
            yield keys, f"found {name!r}; accepted: {accepted}"
        elif is_user_object(name) and (message := fault(name, metric, num_classes)):
            yield keys, message
