"""Checks of the metrics that a sweep file names: the objectives and further ones."""

from __future__ import annotations

from collections.abc import Iterator

from kdsweep import tasks
from kdsweep.config.spec import SweepSpec
from kdsweep.config.yaml import Keys
from kdsweep.errors import InputError
from kdsweep.registry import is_user_object
from kdsweep.search.section import ObjectiveSection
from kdsweep.tasks import Goal, Task
from kdsweep.tasks.metrics import COSTS
from kdsweep.tasks.metrics.totals import fault

MOST = 3  # objectives


def objective_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    """Yield faults in the names and directions of metrics, as (path, message)."""
    try:
        task = tasks.of(spec.dataset)
    except InputError:
        return  # reported as a fault of the data set
    yield from _combination_faults(spec)
    for keys, section in _sections(spec):
        try:
            mode = "min" if section.metric in COSTS else task.metric(section.metric).mode
        except InputError as error:
            costs = f", or a cost: {', '.join(COSTS)}" if keys[1:] and keys[-1] != 0 else ""
            yield (*keys, "metric"), f"{error}{costs}"
            continue
        if section.mode not in ("auto", mode):
            yield (*keys, "mode"), f"found {section.mode!r}; accepted: {mode!r}, which is best for {section.metric}"
    yield from _further_faults(spec, task)


def with_modes(spec: SweepSpec) -> ObjectiveSection | list[ObjectiveSection]:
    """Return the key `objective` with every direction resolved."""
    pairs = zip(spec.objectives, spec.goals, strict=True)
    resolved = [one.model_copy(update={"mode": goal.mode}) for one, goal in pairs]
    return resolved if isinstance(spec.objective, list) else resolved[0]


def _sections(spec: SweepSpec) -> Iterator[tuple[Keys, ObjectiveSection]]:
    """Yield each objective with its path in the sweep file."""
    if isinstance(spec.objective, list):
        yield from ((("objective", index), one) for index, one in enumerate(spec.objective))
    else:
        yield ("objective",), spec.objective


def _combination_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    """Yield faults of the objectives as a whole."""
    sections = list(_sections(spec))
    if isinstance(spec.objective, list) and not 2 <= len(sections) <= MOST:
        accepted = f"2 to {MOST} objectives; a single one is written as {{metric: val_accuracy}}"
        yield ("objective",), f"found {len(sections)} in a list; accepted: {accepted}"
        return
    seen: set[str] = set()
    for keys, section in sections:
        column = Goal(section.metric).column
        if column in seen:
            yield (*keys, "metric"), f"found {section.metric!r} twice; accepted: different objectives"
        seen.add(column)
    keys, first = sections[0]
    if first.metric in COSTS:
        accepted = "a metric on the validation split such as val_accuracy, which picks the best epoch of each trial"
        example = f"; a cost can follow it: [val_accuracy, {first.metric}]"
        yield (*keys, "metric"), f"found {first.metric!r}; accepted: {accepted}{example}"


def _further_faults(spec: SweepSpec, task: Task) -> Iterator[tuple[Keys, str]]:
    """Yield faults in the key `metrics`."""
    known = {*task.always, *(Goal(one.metric).name for one in spec.objectives)}
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
    written: dict[Keys, str] = {
        (*keys, "metric"): one.metric for keys, one in _sections(spec) if one.metric not in COSTS
    }
    written |= {("metrics", index): name for index, name in enumerate(spec.metrics)}
    for keys, name in written.items():
        metric = task.metric(name)
        if num_classes < metric.least_classes:
            accepted = f"a metric for {num_classes} classes; this one needs at least {metric.least_classes}"
            yield keys, f"found {name!r}; accepted: {accepted}"
        elif is_user_object(name) and (message := fault(name, metric, num_classes)):
            yield keys, message
