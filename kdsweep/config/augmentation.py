"""Checks of the augmentation, in the data set's section and in the search space."""

from __future__ import annotations

from collections.abc import Iterator

from kdsweep import datasets, tasks
from kdsweep.config.spec import SweepSpec
from kdsweep.config.yaml import Keys
from kdsweep.errors import InputError
from kdsweep.params import named
from kdsweep.registry import is_user_object
from kdsweep.search.parsing import SpaceError
from kdsweep.tasks import Task
from kdsweep.tasks.image.transforms.written import mixers_of
from kdsweep.tasks.losses import LOSSES


def augment_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    """Yield faults of a valid augmentation beside the other settings, as (path, message)."""
    try:
        space, default = spec.search_space, spec.augment
    except (SpaceError, InputError):
        return  # reported as a fault of the space or of the data set
    searched = space.shared.get("augment")
    keys: Keys = ("dataset", "augment") if searched is None else ("space", "augment")
    texts = (default,) if searched is None else tuple(map(str, searched.every()))
    if fault := transforms_fault(spec):
        yield keys, fault
        return
    yield from _idle_faults(spec, texts)
    for text in texts:
        if mixers := mixers_of(text):
            yield from ((keys, message) for message in _loss_faults(spec, mixers[0]))
            break


def _idle_faults(spec: SweepSpec, texts: tuple[str, ...]) -> Iterator[tuple[Keys, str]]:
    """Yield settings that have no effect on what the students or a teacher see."""
    views, epochs = spec.dataset.views, spec.budgets[-1]
    if views and set(texts) == {"none"}:
        yield ("dataset", "views"), f"found {views}, which has no effect without augmentation; accepted: 0"
    elif views > epochs:
        message = f"found {views}, more than the {epochs} epochs of a trial, which then never repeats a view"
        yield ("dataset", "views"), f"{message}; accepted: at most {epochs}, or 0 for a new view in every epoch"
    teachers = [spec.of_teacher(name).teacher for name in spec.teacher_names]
    if "augment" in spec.space and spec.augment != "none" and all(one.checkpoint or one.student for one in teachers):
        message = f"found {spec.augment}, which has no effect beside space.augment, because no teacher is trained here"
        yield ("dataset", "augment"), f"{message}; leave it out, or list it in space.augment"


def transforms_fault(spec: SweepSpec, task: Task | None = None) -> str:
    """Return what is wrong with transforms in the space of a task without images; empty if nothing is.

    Args:
        spec: The sweep.
        task: The task, if it is known; a user's own data set names it only when its code runs.
    """
    if "augment" not in spec.search_space.shared:
        return ""
    try:
        if task is None and not is_user_object(spec.dataset.name):
            task = tasks.get(datasets.get(spec.dataset.name).task)
    except InputError:
        return ""  # reported as a fault of the data set
    if task is None or task.has_transforms:
        return ""
    return f"found transforms of images; accepted: no such key, because {task.noun} are used unchanged"


def _loss_faults(spec: SweepSpec, mixer: str) -> Iterator[str]:
    """Yield losses that do not take the labels of mixed images."""
    drawn = spec.search_space.shared.get("task_loss")
    names = (named(spec.train.task_loss)[0],) if drawn is None else tuple(map(str, drawn.every()))
    for name in names:
        try:
            takes = LOSSES.find(name).takes_probabilities
        except InputError:
            continue  # reported as a fault of the loss
        if not takes:
            able = ", ".join(loss for loss in LOSSES if LOSSES[loss].takes_probabilities)
            yield (
                f"found {mixer}, whose mixed labels task_loss {name} does not take; accepted: with {able}, or with a "
                "loss whose takes_probabilities is True"
            )


def augment_notes(spec: SweepSpec) -> list[str]:
    """Return a note if trials have views of their own, whose teacher outputs cannot be shared."""
    if not (wide := spec.view_sets.open):
        return []
    return [
        f"space.augment: {', '.join(wide)}: drawn from a range, so each trial has views of its own, and the teacher "
        "runs in every epoch of it; a choice, randint or quniform lets trials share the teacher's stored outputs"
    ]
