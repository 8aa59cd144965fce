"""Checks whether the models fit the data set, the constraints and the methods; and where a spec's files are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdsweep import datasets, methods, models, tasks
from kdsweep.config.augmentation import transforms_fault
from kdsweep.config.constraints import within_constraints
from kdsweep.config.objective import metric_faults
from kdsweep.config.spec import SweepSpec
from kdsweep.config.yaml import Keys
from kdsweep.datasets import DatasetInfo, Source, embedded
from kdsweep.distributions import Choice
from kdsweep.errors import InputError, MethodError
from kdsweep.registry import is_user_object
from kdsweep.search.space import SearchSpace
from kdsweep.storage import weights
from kdsweep.storage.fetched import cache_root, local_copy

SHIPPED = "kdsweep:"


def source_of(spec: SweepSpec) -> Source:
    """Return where to read the spec's data set."""
    return spec.dataset.source()


def checkpoint_path(written: str) -> Path:
    """Return the local path of the file that `teacher.checkpoint` names; a URI is copied to a local cache first.

    Raises:
        InputError: If there is no such shipped checkpoint, or the URI cannot be read.
    """
    if written.startswith(SHIPPED):
        return embedded.path(f"{written.removeprefix(SHIPPED)}.safetensors")
    return local_copy(written, "file")


def dataset_info(spec: SweepSpec) -> DatasetInfo:
    """Return the description of the spec's data set.

    Raises:
        InputError: If there is no such data set, or it is not where it should be.
    """
    return datasets.get(spec.dataset.name).describe(source_of(spec))


def faulty_key(spec: SweepSpec, error: InputError) -> str:
    """Return the key of `dataset` that an error is about: an error about its files starts with their path."""
    return "root" if str(error).startswith((spec.dataset.root, str(cache_root()))) else "name"


def model_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    """Yield faults of the models at every width that can be drawn, and of the methods that compare them.

    Built-in models are described without torch; others are built and run once on the CPU.
    """
    try:
        info = dataset_info(spec)
    except InputError as error:
        yield ("dataset", faulty_key(spec, error)), str(error)
        return
    task = tasks.of(spec.dataset)
    if is_user_object(spec.dataset.name):  # the others were checked earlier
        for key, message in task.faults(spec.dataset, datasets.get(spec.dataset.name), info):
            yield ("dataset", *key) if isinstance(key, tuple) else ("dataset", key), message
        if fault := transforms_fault(spec, task):
            yield ("space", "augment"), fault
    yield from metric_faults(spec, len(info.class_names))
    input_spec = task.input_spec(info.input_shape)
    found: dict[str, list[models.Described]] = {}
    tried = {"teacher": (spec.teacher.width,), "student": widths(spec.search_space)}
    for who, section in (("teacher", spec.teacher), ("student", spec.student)):
        try:
            found[who] = [
                models.describe(section.model, input_spec, len(info.class_names), width, **section.options)
                for width in tried[who]
            ]
        except InputError as error:
            yield (who, "model"), str(error)
    if len(found) < 2:
        return
    (teacher,) = found["teacher"]
    if spec.teacher.checkpoint is not None:
        path = checkpoint_path(spec.teacher.checkpoint)
        try:
            weights.fit_shapes(teacher.state, weights.shapes(path), f"checkpoint {path}")
        except InputError as error:
            yield ("teacher", "checkpoint"), str(error)
    try:
        within_constraints(spec, input_spec, len(info.class_names))
    except InputError as error:
        yield ("constraints",), str(error).removeprefix("constraints: ")
    for method in spec.search_space.methods():
        try:
            for student in found["student"]:
                methods.fit(method, student.shown, teacher.shown)
        except MethodError as error:
            yield ("space", "method"), f"{method}: {error}"


def widths(space: SearchSpace) -> tuple[float, ...]:
    """Return every width of a choice, or the bounds of a range."""
    width = space.shared["width"]
    if isinstance(width, Choice):
        return tuple(map(float, width.values))
    return (space.narrowest, space.widest)
