"""Sweeps over images without labels: what the teacher decides of them, and what they cannot have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdsweep import tasks
from kdsweep.config.chains import graduate
from kdsweep.config.fitting import dataset_info
from kdsweep.config.spec import SweepSpec
from kdsweep.config.unlabelled import label_readers
from kdsweep.config.yaml import Keys
from kdsweep.errors import InputError
from kdsweep.search.baseline import PLAIN
from kdsweep.search.section import ObjectiveSection
from kdsweep.search.space import SearchSpace

OF_LABELS = ("task_loss", "label_smoothing")  # settings of the loss on the labels


def with_defaults(spec: SweepSpec) -> SweepSpec:
    """Return the spec with the objective of its task, and of images without labels with what the teacher knows of them.

    A teacher that is a student of an earlier sweep decides the classes and the normalisation that are not given.
    """
    return _with_objective(_with_classes(spec) if spec.label_free else spec)


def _with_objective(spec: SweepSpec) -> SweepSpec:
    one = spec.objective
    if isinstance(one, list) or "metric" in one.model_fields_set:
        return spec
    try:
        metric = tasks.of(spec.dataset).default_metric
    except InputError:
        return spec  # reported as a fault of the data set
    return spec.replaced(objective=ObjectiveSection(metric=metric, mode=one.mode))


def _with_classes(spec: SweepSpec) -> SweepSpec:
    data, student = spec.dataset, spec.teacher.student
    if student is None:
        return spec
    try:
        known = graduate(student)
    except InputError:
        return spec  # reported as a fault of the teacher
    taken: dict[str, Any] = {} if data.classes else {"classes": list(known.class_names)}
    if "normalize" not in data.model_fields_set:
        taken["normalize"] = known.normalize or data.normalize
    named = spec.replaced(dataset=data.model_copy(update=taken))
    fits = len(known.mean) == _channels(named, len(known.mean))  # otherwise it is a fault of the teacher
    if named.dataset.normalize == "dataset" and not data.mean and fits:
        taken |= {"mean": list(known.mean), "std": list(known.std)}
    return spec.replaced(dataset=data.model_copy(update=taken))


def _channels(spec: SweepSpec, otherwise: int) -> int:
    """Return the number of channels of the images; `otherwise` if they cannot be read."""
    try:
        return dataset_info(spec).input_shape[0]
    except InputError:
        return otherwise  # reported as a fault of the data set


def label_free_faults(spec: SweepSpec, space: SearchSpace) -> Iterator[tuple[Keys, str]]:
    """Yield what needs labels that the images do not have, as (path, message)."""
    if not spec.label_free:
        return
    where = f"the images of {spec.dataset.name} have none"
    for method in space.methods():
        if method == PLAIN:
            message = f"found none, the plain student, which learns from labels, and {where}; accepted: leave it out"
            yield ("space", "method"), message
    yield from label_readers(space, where, (PLAIN,))
    if set(space.shared["alpha"].ends()) != {1.0}:
        found = space.shared["alpha"].written()
        yield ("space", "alpha"), f"found {found}, but without labels there is only distillation; accepted: 1"
    for key in ("alpha_schedule", *OF_LABELS):
        if key in space.shared:
            yield ("space", key), "has no effect without labels; leave it out"
    for key in OF_LABELS:
        if getattr(spec.train, key) != type(spec.train).model_fields[key].default:
            yield ("train", key), "has no effect without labels; leave it out"
    yield from _teacher_faults(spec)
    if spec.dataset.unlabelled is not None:
        message = "found, beside images that all have no labels; put these images below dataset.root"
        yield ("dataset", "unlabelled"), message


def _teacher_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    if spec.teachers:
        message = "found several, with which students cannot all agree; accepted: teacher, without labels"
        yield ("teachers",), message
    elif spec.teacher.checkpoint is None and spec.teacher.student is None:
        accepted = "a file of trained weights, or teacher: {student: ...}"
        yield ("teacher", "checkpoint"), f"found none, but without labels no teacher is trained; accepted: {accepted}"
