"""The checks of a sweep file across its sections, and against what is installed and on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdsweep import datasets, methods, models, tasks
from kdsweep.config.augmentation import augment_faults
from kdsweep.config.chains import graduate
from kdsweep.config.fitting import checkpoint_path, dataset_info, faulty_key, model_faults, source_of
from kdsweep.config.label_free import label_free_faults
from kdsweep.config.objective import objective_faults
from kdsweep.config.several import several_faults
from kdsweep.config.sizes import subset_fault, training_files
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.config.unlabelled import samples_fault, unlabelled_faults
from kdsweep.config.yaml import Keys
from kdsweep.datasets import DATASETS, Dataset
from kdsweep.datasets.section import DatasetSpec
from kdsweep.distributions import Value
from kdsweep.errors import InputError, ModelError, UnknownNameError, did_you_mean
from kdsweep.params import Parts, named
from kdsweep.registry import is_user_object
from kdsweep.search.parsing import SpaceError
from kdsweep.search.samplers import SAMPLERS
from kdsweep.search.section import sampler_of
from kdsweep.search.space import DECIDED_BY, OF_ENSEMBLES, PARTS, SearchSpace
from kdsweep.search.stopping import STOPPING_RULES
from kdsweep.section import MOST_EPOCHS, Section
from kdsweep.storage import weights
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place, of_ray
from kdsweep.training.section import OptimizationSpec, TrainSpec
from kdsweep.words import count_of

MOST_TRIALS = 1_000_000
MOST_FILES = 20  # unreadable image files that are listed
CHECKPOINTS = "a .safetensors file or a PyTorch state dict"

Related = tuple[tuple[str, ...], Keys, str]


def relations(spec: SweepSpec) -> Iterator[Related]:
    """Yield cross-section and environment faults, as (sections involved, path, message)."""
    yield from _storage_faults(spec)
    yield from tracking_faults(spec)
    yield from _dataset_faults(spec)
    gpus = spec.resources.gpus_per_trial
    if gpus != "auto" and gpus > 1:
        accepted = "auto, or at most 1: a trial trains on one GPU, and more trials at a time use more GPUs"
        yield ("resources",), ("resources", "gpus_per_trial"), f"found {gpus:g}; accepted: {accepted}"
    for keys, message in objective_faults(spec):
        yield ("objective", "dataset", "metrics"), keys, message
    for keys, message in several_faults(spec):
        yield ("objective", str(keys[0]), "space"), keys, message
    for keys, message in augment_faults(spec):
        yield (str(keys[0]), "dataset", "space", "train"), keys, message
    yield from _warm_start_faults(spec)
    yield from _teacher_faults(spec)
    yield from ((("confirm",), ("confirm", key), message) for key, message in spec.confirm.faults())
    yield from _student_faults(spec)
    yield from _drop_path_faults(spec)
    yield from _epochs_faults(spec)
    part_faults = list(_part_faults(spec))
    yield from part_faults
    yield from _space_faults(spec, combined=not part_faults)


def _storage_faults(spec: SweepSpec) -> Iterator[Related]:
    """Yield why no sweep can be kept in `storage`."""
    if reason := of_ray(spec.storage):
        message = (
            f"{reason}; accepted: a directory that every node reaches, such as --storage /shared/runs, or s3://..."
        )
        yield ("storage",), ("storage",), f"found {spec.storage!r}, {message}"


def space_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    """Yield the faults of the space of a spec that is valid otherwise."""
    found = [(keys, message) for _, keys, message in _space_faults(spec, combined=True)]
    yield from found or model_faults(spec)


def _space_faults(spec: SweepSpec, combined: bool) -> Iterator[Related]:
    try:
        space = spec.search_space
    except SpaceError as error:
        for path, message in error.faults:
            yield ("space",), ("space", *path), message
    else:
        yield from _search_faults(spec, space)
        if combined:
            yield from _combination_faults(spec, space)


def tracking_faults(spec: SweepSpec) -> Iterator[Related]:
    """Yield what is wrong with the trackers, as `relations` does."""
    for keys, message in spec.tracking.faults():
        yield ("tracking",), ("tracking", *keys), message


def _dataset_faults(spec: SweepSpec) -> Iterator[Related]:
    section = spec.dataset
    if faults := list(_streamed_faults(section)):
        yield from ((("dataset",), ("dataset", *key), message) for key, message in faults)
        return
    try:
        dataset = datasets.get(section.name) if not is_user_object(section.name) else None
        info = dataset.describe(source_of(spec)) if dataset else None
    except InputError as error:
        yield ("dataset",), ("dataset", faulty_key(spec, error)), str(error)
        return
    if section.subset and section.subset * section.val_fraction < 1:
        accepted = f"at least {int(1 / section.val_fraction) + 1}, so that validation has an image"
        yield ("dataset",), ("dataset", "subset"), f"found {section.subset}; accepted: {accepted}"
    if dataset is not None and info is not None:
        for key, message in tasks.get(dataset.task).faults(section, dataset, info):
            yield ("dataset",), ("dataset", *key) if isinstance(key, tuple) else ("dataset", key), message
        if fault := samples_fault(spec, tasks.get(dataset.task)):
            yield ("dataset",), ("dataset", "unlabelled"), fault
        yield from _file_faults(spec, dataset)


def _streamed_faults(section: DatasetSpec) -> Iterator[tuple[Keys, str]]:
    """Yield what cannot be combined with images that are fetched one by one."""
    remote = Place.of(section.root).is_remote
    if section.stream and section.unlabelled is not None and Place.of(section.unlabelled.root).is_remote:
        accepted = "accepted with stream: a directory that every machine reaches"
        yield ("unlabelled", "root"), f"found {section.unlabelled.root!r}; {accepted}"
    if not section.stream or not remote:
        return
    if section.skip_unreadable:
        accepted = f"false, because images streamed from {section.root} are not read in advance"
        yield ("skip_unreadable",), f"found true; accepted: {accepted}"
    if is_user_object(section.name) or (section.name in DATASETS and not DATASETS[section.name].from_store):
        yield ("stream",), f"found true with {section.name!r} at {section.root}; accepted: false, or image_folder"


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
        more = count_of(len(lines) - MOST_FILES, "more file")
        message = f"{more} cannot be read; repair them, or set dataset.skip_unreadable"
        yield ("dataset",), ("dataset", "root"), message


def _warm_start_faults(spec: SweepSpec) -> Iterator[Related]:
    for index, path in enumerate(spec.search.warm_start):
        keys: Keys = ("search", "warm_start", index)
        try:
            there = _named_objectives(read_spec(SweepDir.existing(path)))
        except InputError as error:
            yield ("search",), keys, " ".join(str(error).split())
            continue
        if len(spec.objectives) == 1 and there != (here := _named_objectives(spec)):
            message = f"found {path}, whose objective is {there}; accepted: sweeps with {here}"
            yield ("search", "objective"), keys, message


def _named_objectives(spec: SweepSpec) -> str:
    return " and ".join(one.metric for one in spec.objectives)


def _teacher_faults(spec: SweepSpec) -> Iterator[Related]:
    if spec.teachers and spec.teacher != next(iter(spec.teachers.values())):
        message = "found, beside teachers; accepted: one of them"
        yield ("teacher", "teachers"), ("teacher",), message
    for name, keys in spec.teacher_keys.items():
        yield from _faults_of_teacher(spec.of_teacher(name), keys)


def _faults_of_teacher(spec: SweepSpec, keys: Keys) -> Iterator[Related]:
    who = str(keys[0])
    if spec.teacher.student is not None and not spec.teacher.model:
        return  # a student that cannot be found, reported as such
    yield from _named_model_faults(keys, spec.teacher.model, spec.teacher.options)
    yield from _graduate_faults(spec, keys)
    written = spec.teacher.checkpoint
    if written is None:
        return
    at: Keys = (*keys, "checkpoint")
    try:
        path = checkpoint_path(written)
    except InputError as error:
        yield (who,), at, str(error)
        return
    if not path.is_file():
        yield (who,), at, f"no such file: {path}; accepted: {CHECKPOINTS}"
    elif path.suffix == ".safetensors" and spec.teacher.model in models.MODELS:
        try:
            classes = len(dataset_info(spec).class_names)
        except InputError:
            return  # reported as a fault of the data set
        try:
            weights.check_classes(path, models.MODELS[spec.teacher.model].taps.head, classes)
        except InputError as error:
            yield (who, "dataset"), at, str(error)


def _graduate_faults(spec: SweepSpec, keys: Keys) -> Iterator[Related]:
    """Yield that a teacher was a student of other classes, of another order of them, or of other inputs."""
    if spec.teacher.student is None:
        return
    try:
        here, known = dataset_info(spec).class_names, graduate(spec.teacher.student)
    except InputError as error:
        yield (str(keys[0]), "dataset"), (*keys, "student"), " ".join(str(error).split())
        return
    if known.normalize not in ("", spec.dataset.normalize):
        message = f"was trained with dataset.normalize: {known.normalize}, and this sweep has {spec.dataset.normalize}"
        yield (str(keys[0]), "dataset"), (*keys, "student"), f"{message}; accepted: the same"
    if tuple(here) != known.class_names:
        pairs = zip(here, known.class_names, strict=False)
        differs = next((f"{a!r} and {b!r}" for a, b in pairs if a != b), "their number")
        message = f"its classes are not those of {spec.dataset.name}: {differs} differ; accepted: the same classes"
        yield (str(keys[0]), "dataset"), (*keys, "student"), message


def _named_model_faults(keys: Keys, name: str, options: Mapping[str, Any]) -> Iterator[Related]:
    who = (str(keys[0]),)
    try:
        models.exists(name)
    except InputError as error:
        yield who, (*keys, "model"), str(error)
        return
    try:
        models.check_options(name, options)
    except InputError as error:
        yield who, (*keys, "options"), str(error)


def _student_faults(spec: SweepSpec) -> Iterator[Related]:
    if spec.student is not None and "student" in spec.space:
        message = "found, beside space.student; accepted: one of them"
        yield ("student", "space"), ("student",), message
    elif spec.student is not None:
        yield from _named_model_faults(("student",), spec.student.model, spec.student.options)
    elif "student" not in spec.space:
        yield ("student",), ("student",), "found nothing; accepted: a mapping of keys, or students in space.student"


def _drop_path_faults(spec: SweepSpec) -> Iterator[Related]:
    """Yield drop paths of models that have no paths to drop."""
    space = spec.space.get("drop_path", 0)
    asked: list[tuple[Keys, str, object]] = []
    for name, keys in spec.teacher_keys.items():
        teacher = spec.of_teacher(name).teacher
        asked.append(((*keys, "train", "drop_path"), teacher.model, teacher.train.drop_path))
    for student in _students(spec):
        asked += [(("train", "drop_path"), student, spec.train.drop_path), (("space", "drop_path"), student, space)]
    for keys, model, rate in asked:
        if rate == 0:
            continue
        try:
            models.exists(model)
        except InputError:
            continue  # reported as a fault of the model
        try:
            models.check_drop_path(model)
        except ModelError as error:
            sections = (str(keys[0]),) if keys[0] in ("teacher", "teachers") else ("student", str(keys[0]))
            yield sections, keys, str(error)


def _students(spec: SweepSpec) -> list[str]:
    """Return the names of the students' models; those of a faulty space are not known."""
    try:
        return [student.model for student in spec.students.values()]
    except (SpaceError, KeyError):
        return []  # reported as a fault of the space, or of the student


def _part_faults(spec: SweepSpec) -> Iterator[Related]:
    """Yield faults in the names and parameters of registered parts."""
    for name, keys in spec.teacher_keys.items():
        train = spec.of_teacher(name).teacher.train
        yield from _training_faults(train, (*keys, "train"), train.epochs)
    yield from _faults_of_part(SAMPLERS, spec.search, ("search", "sampler"), spec.train.epochs)
    epochs = _least_budget(spec)
    of_students = [
        *_training_faults(spec.train, ("train",), epochs),
        *_faults_of_part(STOPPING_RULES, spec.scheduler, ("scheduler", "name"), epochs),
    ]
    for sections, keys, message in of_students:
        searched = "epochs" in spec.space
        told = message.replace("train.epochs", "space.epochs") if searched else message
        yield (*sections, "space") if searched else sections, keys, told


def _least_budget(spec: SweepSpec) -> int:
    """Return the smallest budget, which is the hardest to fit; with unknown budgets the largest of all."""
    try:
        return spec.budgets[0] if "epochs" in spec.space else spec.train.epochs
    except SpaceError:
        return MOST_EPOCHS  # reported as a fault of the space


def _epochs_faults(spec: SweepSpec) -> Iterator[Related]:
    """Yield a budget that the space replaces."""
    default, found = type(spec.train).model_fields["epochs"].default, spec.train.epochs
    if "epochs" in spec.space and found != default:
        message = f"found {found}, which has no effect beside space.epochs; leave it out, or list it in space.epochs"
        yield ("train", "space"), ("train", "epochs"), message


def _training_faults(train: OptimizationSpec, keys: Keys, epochs: int) -> Iterator[Related]:
    for key in PARTS.keys() & type(train).model_fields.keys():
        yield from _faults_of_part(PARTS[key], train, (*keys, key), epochs)


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
    trainings: list[tuple[Keys, OptimizationSpec, SearchSpace]] = [(("train",), spec.train, space)]
    for name, at in spec.teacher_keys.items():
        train = spec.of_teacher(name).teacher.train
        alone = SearchSpace(space.method, {}, {}).beside(TrainSpec(**train.model_dump()))
        trainings.append(((*at, "train"), train, alone))
    for keys, train, known in trainings:
        for name in DECIDED_BY.keys() & type(train).model_fields.keys():
            default, found = type(train).model_fields[name].default, getattr(train, name)
            if found != default and (unused := known.unused(name)):
                message = f"found {found}, which has no effect {unused}; accepted: {default}, or leave it out"
                yield (str(keys[0]), "space"), (*keys, name), message


def _search_faults(spec: SweepSpec, space: SearchSpace) -> Iterator[Related]:
    yield from _taught_faults(spec, space)
    for keys, message in (*unlabelled_faults(spec, space), *label_free_faults(spec, space)):
        yield ("space", "dataset", str(keys[0])), keys, message
    drawn = space.keys()
    for key in spec.scheduler.group_by:
        if key not in drawn:
            message = f"found {key!r}; {did_you_mean(key, drawn)}"
            yield ("scheduler", "space"), ("scheduler", "group_by"), message
        elif key != "width" and not _finite(space, key) and named(spec.scheduler.name)[0] != "none":
            message = f"found {key!r}, drawn from a range, so that nearly every trial would be a group of its own"
            yield ("scheduler", "space"), ("scheduler", "group_by"), f"{message}; accepted: width, or a finite setting"
    if spec.search.trials > MOST_TRIALS:
        message = f"found {spec.search.trials}; accepted: at most {MOST_TRIALS}"
        yield ("search",), ("search", "trials"), message
    for index, point in enumerate(spec.search.points):
        for path, message in space.point_faults(point):
            yield ("search", "space"), ("search", "points", index, *path), message


def _taught_faults(spec: SweepSpec, space: SearchSpace) -> Iterator[Related]:
    """Yield faults of the choice of teachers."""
    if "teacher" not in space.shared:
        yield from _ensemble_faults(space, [])
        return
    drawn = space.shared["teacher"]
    if not spec.teachers:
        message = (
            f"found {drawn.written()}, but the section teachers is missing; accepted: teachers: {{a: ..., b: ...}}"
        )
        yield ("space", "teachers"), ("space", "teacher"), message
        return
    for name in dict.fromkeys(one for value in drawn.every() for one in str(value).split("+")):
        if name not in spec.teachers:
            message = f"unknown teacher {name!r}; {did_you_mean(name, spec.teachers)}"
            yield ("space", "teachers"), ("space", "teacher"), message
    ensembles = [value for value in drawn.every() if "+" in str(value)]
    yield from _ensemble_faults(space, ensembles)
    if len(ensembles) == drawn.size:
        for method in space.methods():
            needs = {need for term in methods.terms(method) for need in methods.get(term).teacher_needs({})}
            if needs - {"logits"}:
                message = f"{method} compares features, which an ensemble has none of; accepted: a teacher by itself"
                yield ("space",), ("space", "teacher"), f"{message} in space.teacher, or methods on logits"


def _ensemble_faults(space: SearchSpace, ensembles: Sequence[Value]) -> Iterator[Related]:
    """Yield settings of ensembles in a space that has none."""
    for key in sorted(OF_ENSEMBLES & space.shared.keys()) if not ensembles else ():
        message = "has no effect without an ensemble in space.teacher; leave it out"
        yield ("space",), ("space", key), f"{message}, as with --set space.{key}=null"


def _finite(space: SearchSpace, key: str) -> bool:
    return all(drawn[key].finite for drawn in map(space.parameters, space.methods()) if key in drawn)


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
