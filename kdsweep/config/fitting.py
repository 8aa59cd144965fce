"""Checks whether the models fit the data set, the constraints and the methods; and where a spec's files are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

from kdsweep import datasets, methods, models, tasks
from kdsweep.config.augmentation import transforms_fault
from kdsweep.config.constraints import within_constraints
from kdsweep.config.objective import metric_faults
from kdsweep.config.sizes import split_fault
from kdsweep.config.spec import SweepSpec
from kdsweep.config.unlabelled import samples_fault
from kdsweep.config.yaml import Keys
from kdsweep.datasets import Dataset, DatasetInfo, Source, embedded
from kdsweep.distributions import Distribution
from kdsweep.errors import InputError, MethodError
from kdsweep.models import transformers
from kdsweep.registry import is_user_object
from kdsweep.search.space import SearchSpace
from kdsweep.storage import weights
from kdsweep.storage.cache import cache_root
from kdsweep.storage.fetched import local_copy

SHIPPED = "kdsweep:"
MOST_CLASSES = 2**15  # `teacher.keep_logits` stores class numbers as int16


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
    path = local_copy(written, "file")
    return path / transformers.WEIGHTS if transformers.is_folder(path) else path


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
        dataset = datasets.get(spec.dataset.name)
        info = dataset.describe(source_of(spec))
    except InputError as error:
        yield ("dataset", faulty_key(spec, error)), str(error)
        return
    task = tasks.of(spec.dataset)
    if is_user_object(spec.dataset.name):  # the others were checked earlier
        yield from _own_data_faults(spec, dataset, info)
    yield from metric_faults(spec, len(info.class_names))
    try:
        input_spec = task.input_of(spec.dataset, info)
    except InputError as error:
        yield ("dataset",), str(error)
        return
    classes = len(info.class_names)
    students: dict[str, list[models.Described]] = {}
    teachers: dict[str, models.Described] = {}
    for name, at in spec.teacher_keys.items():
        section = spec.of_teacher(name).teacher
        if isinstance(section.keep_logits, int) and not section.keep_logits < classes <= MOST_CLASSES:
            few = f"all, or from 1 to {classes - 1}, of {classes} classes"
            accepted = few if classes <= MOST_CLASSES else f"all, with more than {MOST_CLASSES} classes"
            yield (*at, "keep_logits"), f"found {section.keep_logits}; accepted: {accepted}"
        try:
            teachers[name] = models.describe(section.model, input_spec, classes, section.width, **section.options)
        except InputError as error:
            yield (*at, "model"), str(error)
            continue
        if section.checkpoint is not None:
            path = checkpoint_path(section.checkpoint)
            saved = section.model.startswith(transformers.FAMILY) and transformers.is_folder(path.parent)
            if saved and (fault := transformers.class_fault(path.parent, info.class_names)):
                yield (*at, "checkpoint"), fault
            try:
                weights.fit_shapes(teachers[name].state, weights.shapes(path), f"checkpoint {path}")
            except InputError as error:
                yield (*at, "checkpoint"), str(error)
    for label, student in spec.students.items():
        try:
            tried = ends_of(spec.search_space.width_of({"student": label}))
            students[label] = [
                models.describe(student.model, input_spec, classes, width, **student.options) for width in tried
            ]
        except InputError as error:
            yield ("space", "student") if label else ("student", "model"), str(error)
    if len(teachers) < len(spec.teacher_names) or len(students) < len(spec.students):
        return
    try:
        within_constraints(spec, input_spec, classes)
    except InputError as error:
        yield ("constraints",), str(error).removeprefix("constraints: ")
    for method, reasons in _pair_faults(spec, students, teachers):
        yield ("space", "method"), f"{method}{'; '.join(reasons)}"


def _own_data_faults(spec: SweepSpec, dataset: Dataset, info: DatasetInfo) -> Iterator[tuple[Keys, str]]:
    """Yield faults of settings beside a data set of the user's own."""
    task = tasks.of(spec.dataset)
    if fault := split_fault(spec, info, dataset.training_samples(source_of(spec))):
        yield ("dataset", "val_fraction"), fault
    for key, message in task.faults(spec.dataset, dataset, info):
        yield ("dataset", *key) if isinstance(key, tuple) else ("dataset", key), message
    if fault := transforms_fault(spec, task):
        yield ("space", "augment"), fault
    if fault := samples_fault(spec, task):
        yield ("dataset", "unlabelled"), fault


def _pair_faults(
    spec: SweepSpec, students: Mapping[str, list[models.Described]], teachers: Mapping[str, models.Described]
) -> Iterator[tuple[str, list[str]]]:
    """Yield each method that cannot compare some student with some teacher, and the reasons, naming the students."""
    for method in spec.search_space.methods():
        reasons: dict[str, list[str]] = {}
        for (label, described), (name, teacher) in product(students.items(), teachers.items()):
            try:
                for student in described:
                    methods.fit(method, student.shown, teacher.shown)
            except MethodError as error:
                which = " of ".join(filter(None, (label or spec.students[label].model, name and f"teacher {name}")))
                reasons.setdefault(str(error), []).append(which)
        if reasons and (spec.search_space.students or spec.teachers):
            told = [f"with {', '.join(labels)}: {reason}" for reason, labels in reasons.items()]
            yield (
                f"{method} ",
                [*told, "leave out the method or the " + ("student" if spec.search_space.students else "teacher")],
            )
        elif reasons:
            yield f"{method}: ", list(reasons)


def widths(space: SearchSpace) -> tuple[float, ...]:
    """Return every width of a choice, or the bounds of a range, over all students."""
    return tuple(dict.fromkeys(width for drawn in space.widths().values() for width in ends_of(drawn)))


def ends_of(width: Distribution) -> tuple[float, ...]:
    """Return every width of a choice or constant, or the bounds of a range."""
    return tuple(map(float, width.ends()))
