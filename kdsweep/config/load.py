"""Read a sweep file and report every fault in it at once.

Cheap checks run first: the YAML, the types of each section, then cross-section and environment checks. The models are
checked only when all of those pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from kdsweep import datasets, methods, models, tasks
from kdsweep.config.constraints import within_constraints
from kdsweep.config.shapes import EXAMPLES, schema_faults
from kdsweep.config.sizes import batch_note, subset_fault, training_files
from kdsweep.config.spec import SweepSpec
from kdsweep.config.yaml import Document, Keys
from kdsweep.datasets import Dataset, DatasetInfo, Source, embedded
from kdsweep.distributions import Choice
from kdsweep.errors import InputError, MethodError, SpecError, UnknownNameError, did_you_mean
from kdsweep.params import Parts, named
from kdsweep.registry import import_from, is_user_object
from kdsweep.search.extent import configurations
from kdsweep.search.parsing import SpaceError
from kdsweep.search.samplers import SAMPLERS
from kdsweep.search.section import sampler_of
from kdsweep.search.space import DECIDED_BY, PARTS, SearchSpace
from kdsweep.search.stopping import STOPPING_RULES
from kdsweep.section import Section
from kdsweep.storage import weights
from kdsweep.tasks import counted
from kdsweep.training.section import OptimizationSpec, TrainSpec

SHIPPED = "kdsweep:"
MOST_TRIALS = 1_000_000
MOST_FILES = 20  # unreadable image files that are listed
CHECKPOINTS = "a .safetensors file or a PyTorch state dict"


def load_spec(path: str | Path, overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """Read and check a sweep file.

    Args:
        path: The YAML file; relative paths in it are taken from the current directory.
        overrides: Values by dotted path, such as `{"search.trials": 8}`.

    Returns:
        The spec, its paths absolute.

    Raises:
        SpecError: With one line per fault.
    """
    document = Document(Path(path))
    document.values.setdefault("name", Path(path).stem)
    for dotted, value in (overrides or {}).items():
        document.override(dotted, value)
    import_from(str(Path.cwd()))
    spec = _checked(document)
    faults = [document.fault(keys, message) for keys, message in _model_faults(spec)]
    if faults:
        raise SpecError(faults)
    return spec.replaced(objective=spec.objective.model_copy(update={"mode": spec.goal.mode}))


def notes(spec: SweepSpec) -> list[str]:
    """Return warnings about valid but unlikely settings, such as a space smaller than the number of trials."""
    return [*_file_notes(spec), *_size_notes(spec), *_space_notes(spec), *_group_notes(spec)]


def _size_notes(spec: SweepSpec) -> list[str]:
    files = training_files(spec, source_of(spec))
    known = [count for count in (files, spec.dataset.subset) if count]
    return [note] if known and (note := batch_note(spec, min(known))) else []


def _file_notes(spec: SweepSpec) -> list[str]:
    if not spec.dataset.skip_unreadable:
        return []
    unreadable = datasets.get(spec.dataset.name).unreadable(source_of(spec))
    skipped = {split: len(lines) for split, lines in unreadable.items()}
    return [f"unreadable images are skipped: {counted(skipped)}"] if skipped else []


def _group_notes(spec: SweepSpec) -> list[str]:
    if named(spec.scheduler.name)[0] == "none":
        return []
    space = spec.search_space
    return [
        f"scheduler.group_by: {key} is drawn from a range, so nearly every trial is a group of its own, and trials are "
        "only compared within their group"
        for key in spec.scheduler.group_by
        if any(not drawn[key].finite for drawn in map(space.parameters, space.methods()) if key in drawn)
    ]


def _space_notes(spec: SweepSpec) -> list[str]:
    trials, there = spec.search.trials, configurations(spec.search_space)
    if there == 1:
        return ["the space holds one configuration: nothing is searched"]
    if there >= trials:
        return []
    ends = "the search ends after them" if spec.search.sampler == "grid" else "some are tried more than once"
    return [f"search.trials is {trials}, but the space holds {there:.0f} configurations: {ends}"]


def source_of(spec: SweepSpec) -> Source:
    """Return where to read the spec's data set."""
    section = spec.dataset
    return Source(Path(section.root).absolute(), section.download, section.resize, section.skip_unreadable)


def checkpoint_path(written: str) -> Path:
    """Return the path of the file that `teacher.checkpoint` names."""
    if written.startswith(SHIPPED):
        return embedded.path(f"{written.removeprefix(SHIPPED)}.safetensors")
    return Path(written).expanduser().absolute()


def _checked(document: Document) -> SweepSpec:
    """Return the spec after every check that needs no model.

    Raises:
        SpecError: With every fault; a faulty section does not hide faults in the others.
    """
    faults: list[str] = []
    faulty: set[str] = set()
    values = document.values
    try:
        SweepSpec.model_validate(values)
    except ValidationError as error:
        faults = list(dict.fromkeys(document.fault(*fault) for fault in schema_faults(error)))
        faulty = {str(detail["loc"][0]) for detail in error.errors()}
        # Examples stand in for faulty sections, so that the others can still be checked against each other.
        values = EXAMPLES | {key: value for key, value in values.items() if key not in faulty}
    spec = with_absolute_paths(SweepSpec.model_validate(values))
    faults += [
        document.fault(keys, message)
        for sections, keys, message in _relations(spec)
        if not faulty.intersection(sections)
    ]
    if faults:
        raise SpecError(faults)
    return spec


def with_absolute_paths(spec: SweepSpec) -> SweepSpec:
    """Return the spec with absolute paths, because trials may run in another directory."""
    root = str(Path(spec.dataset.root).expanduser().absolute())
    checkpoint = spec.teacher.checkpoint
    if checkpoint is not None and not checkpoint.startswith(SHIPPED):
        checkpoint = str(checkpoint_path(checkpoint))
    storage = spec.storage if _scheme(spec.storage) else str(Path(spec.storage).expanduser().absolute())
    return spec.replaced(
        dataset=spec.dataset.model_copy(update={"root": root}),
        teacher=spec.teacher.model_copy(update={"checkpoint": checkpoint}),
        storage=storage,
        tracking=spec.tracking.absolute(),
    )


def _scheme(storage: str) -> str:
    scheme = urlsplit(storage).scheme
    return scheme if "://" in storage else ""


Related = tuple[tuple[str, ...], Keys, str]


def _relations(spec: SweepSpec) -> Iterator[Related]:
    """Yield cross-section and environment faults, as (sections involved, path, message)."""
    if _scheme(spec.storage):
        accepted = "a directory that every node reaches (mount the bucket or use a shared file system)"
        yield ("storage",), ("storage",), f"found {spec.storage!r}; accepted: {accepted}"
    yield from tracking_faults(spec)
    yield from _dataset_faults(spec)
    yield from _objective_faults(spec)
    yield from _teacher_faults(spec)
    yield from _named_model_faults("student", spec.student.model, spec.student.options)
    part_faults = list(_part_faults(spec))
    yield from part_faults
    try:
        space = spec.search_space
    except SpaceError as error:
        for path, message in error.faults:
            yield ("space",), ("space", *path), message
    else:
        yield from _search_faults(spec, space)
        if not part_faults:
            yield from _combination_faults(spec, space)


def tracking_faults(spec: SweepSpec) -> Iterator[Related]:
    """Yield what is wrong with the trackers, as `_relations` does."""
    for keys, message in spec.tracking.faults():
        yield ("tracking",), ("tracking", *keys), message


def _dataset_faults(spec: SweepSpec) -> Iterator[Related]:
    section = spec.dataset
    try:
        dataset = datasets.get(section.name) if not is_user_object(section.name) else None
        info = dataset.describe(source_of(spec)) if dataset else None
    except InputError as error:
        yield ("dataset",), ("dataset", _faulty_key(spec, error)), str(error)
        return
    if section.subset and section.subset * section.val_fraction < 1:
        accepted = f"at least {int(1 / section.val_fraction) + 1}, so that validation has an image"
        yield ("dataset",), ("dataset", "subset"), f"found {section.subset}; accepted: {accepted}"
    if dataset is not None and info is not None:
        for key, message in tasks.get(dataset.task).faults(section, dataset, info):
            yield ("dataset",), ("dataset", key), message
        yield from _file_faults(spec, dataset)


def _file_faults(spec: SweepSpec, dataset: Dataset) -> Iterator[Related]:
    """Yield the image files of every split that cannot be read."""
    try:
        unreadable = dataset.unreadable(source_of(spec))
    except InputError as error:
        yield ("dataset",), ("dataset", "root"), str(error)
        return
    if spec.dataset.skip_unreadable:
        return
    lines = [line for lines in unreadable.values() for line in lines]
    if not lines and (files := training_files(spec, source_of(spec))) and (message := subset_fault(spec, files)):
        yield ("dataset",), ("dataset", "subset"), message
    for line in lines[:MOST_FILES]:
        yield ("dataset",), ("dataset", "root"), line
    if len(lines) > MOST_FILES:
        message = f"{len(lines) - MOST_FILES} more files cannot be read; repair them, or set dataset.skip_unreadable"
        yield ("dataset",), ("dataset", "root"), message


def _faulty_key(spec: SweepSpec, error: InputError) -> str:
    """Return the key of `dataset` that an error is about: an error about its files starts with their path."""
    return "root" if str(error).startswith(spec.dataset.root) else "name"


def _objective_faults(spec: SweepSpec) -> Iterator[Related]:
    section = spec.objective
    try:
        task = tasks.of(spec.dataset)
    except InputError:
        return  # reported as a fault of the data set
    try:
        metric = task.metric(section.metric)
    except InputError as error:
        yield ("objective", "dataset"), ("objective", "metric"), str(error)
        return
    if section.mode not in ("auto", metric.mode):
        message = f"found {section.mode!r}; accepted: {metric.mode!r}, which is best for {section.metric}"
        yield ("objective", "dataset"), ("objective", "mode"), message


def _teacher_faults(spec: SweepSpec) -> Iterator[Related]:
    yield from _named_model_faults("teacher", spec.teacher.model, spec.teacher.options)
    written = spec.teacher.checkpoint
    if written is None:
        return
    try:
        path = checkpoint_path(written)
    except InputError as error:
        yield ("teacher",), ("teacher", "checkpoint"), str(error)
        return
    if not path.is_file():
        yield (
            ("teacher",),
            ("teacher", "checkpoint"),
            f"no such file: {path}; accepted: {CHECKPOINTS}",
        )
    elif path.suffix == ".safetensors" and spec.teacher.model in models.MODELS:
        try:
            classes = len(_info(spec).class_names)
        except InputError:
            return  # reported as a fault of the data set
        try:
            weights.check_classes(path, models.MODELS[spec.teacher.model].taps.head, classes)
        except InputError as error:
            yield ("teacher", "dataset"), ("teacher", "checkpoint"), str(error)


def _named_model_faults(who: str, name: str, options: Mapping[str, Any]) -> Iterator[Related]:
    try:
        models.exists(name)
    except InputError as error:
        yield (who,), (who, "model"), str(error)
        return
    try:
        models.check_options(name, options)
    except InputError as error:
        yield (who,), (who, "options"), str(error)


def _part_faults(spec: SweepSpec) -> Iterator[Related]:
    """Yield faults in the names and parameters of registered parts."""
    trainings: dict[Keys, OptimizationSpec] = {("train",): spec.train, ("teacher", "train"): spec.teacher.train}
    for keys, train in trainings.items():
        for key in PARTS.keys() & type(train).model_fields.keys():
            yield from _faults_of_part(PARTS[key], train, (*keys, key), train.epochs)
    yield from _faults_of_part(SAMPLERS, spec.search, ("search", "sampler"), spec.train.epochs)
    yield from _faults_of_part(STOPPING_RULES, spec.scheduler, ("scheduler", "name"), spec.train.epochs)


def _faults_of_part(parts: Parts[Any], section: Section, keys: Keys, epochs: int) -> Iterator[Related]:
    written = getattr(section, str(keys[-1]))
    within: Keys = (*keys, "name") if isinstance(written, dict) else keys
    sections = (str(keys[0]), "train")
    try:
        for name, message in section.part_faults(parts, written, epochs):
            own = isinstance(written, dict) and name in written
            yield sections, (*(keys if own else keys[:-1]), name), message
    except UnknownNameError as error:
        yield sections[:1], within, str(error)


def _unused_faults(spec: SweepSpec, space: SearchSpace) -> Iterator[Related]:
    """Yield settings that were changed but that no part in use reads."""
    alone = SearchSpace(space.method, {}, {}).beside(TrainSpec(**spec.teacher.train.model_dump()))
    for keys, train, known in ((("train",), spec.train, space), (("teacher", "train"), spec.teacher.train, alone)):
        for name in DECIDED_BY.keys() & type(train).model_fields.keys():
            default, found = type(train).model_fields[name].default, getattr(train, name)
            if found != default and (unused := known.unused(name)):
                message = f"found {found}, which has no effect {unused}; accepted: {default}, or leave it out"
                yield (str(keys[0]), "space"), (*keys, name), message


def _search_faults(spec: SweepSpec, space: SearchSpace) -> Iterator[Related]:
    drawn = space.keys()
    for key in spec.scheduler.group_by:
        if key not in drawn:
            message = f"found {key!r}; {did_you_mean(key, drawn)}"
            yield ("scheduler", "space"), ("scheduler", "group_by"), message
    if spec.search.trials > MOST_TRIALS:
        message = f"found {spec.search.trials}; accepted: at most {MOST_TRIALS}"
        yield ("search",), ("search", "trials"), message
    for index, point in enumerate(spec.search.points):
        for path, message in space.point_faults(point):
            yield ("search", "space"), ("search", "points", index, *path), message


def _combination_faults(spec: SweepSpec, space: SearchSpace) -> Iterator[Related]:
    """Yield faults of settings combined with each other. Needs parts that are valid on their own."""
    for path, message in dict.fromkeys(space.part_faults()):
        yield ("space", "train"), path, message
    yield from _unused_faults(spec, space)
    try:
        next(sampler_of(spec.search).listed(space), None)
    except SpaceError as error:
        for path, message in error.faults:
            yield ("search", "space"), ("space", *path), message


def _info(spec: SweepSpec) -> DatasetInfo:
    return datasets.get(spec.dataset.name).describe(source_of(spec))


def _model_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    """Yield faults of the models at every width that can be drawn, and of the methods that compare them.

    Built-in models are described without torch; others are built and run once on the CPU.
    """
    try:
        info = _info(spec)
    except InputError as error:
        yield ("dataset", _faulty_key(spec, error)), str(error)
        return
    task = tasks.of(spec.dataset)
    if is_user_object(spec.dataset.name):  # the others were checked earlier
        for key, message in task.faults(spec.dataset, datasets.get(spec.dataset.name), info):
            yield ("dataset", key), message
    if len(info.class_names) < (least := task.metric(spec.objective.metric).least_classes):
        message = f"found {spec.objective.metric!r}; accepted: a metric for {len(info.class_names)} classes"
        yield ("objective", "metric"), f"{message}; this one needs at least {least}"
    input_spec = task.input_spec(info.input_shape)
    found: dict[str, list[models.Described]] = {}
    widths = {"teacher": (spec.teacher.width,), "student": _widths(spec.search_space)}
    for who, section in (("teacher", spec.teacher), ("student", spec.student)):
        try:
            found[who] = [
                models.describe(section.model, input_spec, len(info.class_names), width, **section.options)
                for width in widths[who]
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


def _widths(space: SearchSpace) -> tuple[float, ...]:
    """Return every width of a choice, or the bounds of a range."""
    width = space.shared["width"]
    if isinstance(width, Choice):
        return tuple(map(float, width.values))
    return (space.narrowest, space.widest)
