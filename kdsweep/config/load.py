"""Read a sweep file, or a dict, and report every fault in it at once.

Cheap checks run first: the YAML, the types of each section, then cross-section and environment checks. The models are
checked only when all of those pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdsweep import datasets
from kdsweep.config.augmentation import augment_notes
from kdsweep.config.chains import resolved
from kdsweep.config.fitting import SHIPPED, model_faults, source_of
from kdsweep.config.label_free import with_defaults
from kdsweep.config.objective import with_modes
from kdsweep.config.relations import relations
from kdsweep.config.shapes import Repair, repaired, schema_faults
from kdsweep.config.shipped import sweep_file
from kdsweep.config.sizes import batch_note, training_images
from kdsweep.config.spec import SweepSpec, TeacherSpec
from kdsweep.config.yaml import Document, Keys, need_overrides
from kdsweep.errors import InputError, ModelError, SpecError
from kdsweep.models import transformers
from kdsweep.params import named
from kdsweep.registry import given, import_from, is_given
from kdsweep.search.extent import configurations
from kdsweep.sources import user_objects
from kdsweep.storage.places import Place
from kdsweep.tasks import counted


def load_spec(given: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """Read and check a sweep file, or the same keys as a dict.

    Args:
        given: The YAML file, the name of one that comes with kdsweep (`quickstart`), or a dict with the keys of one;
            relative paths in it are taken from the current directory.
        overrides: Values by dotted path, such as `{"search.trials": 8}`; None removes a key, so that its default holds.

    Returns:
        The spec, its paths absolute.

    Raises:
        SpecError: With one line per fault: `FILE:LINE: PATH: ...`, or `PATH: ...` for a dict.
    """
    document = _document(given, overrides)
    spec = _checked(document)
    if faults := document.faults(model_faults(spec)):
        raise SpecError(faults)
    return spec.replaced(objective=with_modes(spec))


def check_spec(given: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """Check what can be checked of a dict before its data set is read: everything but the models.

    Args:
        given: As for `load_spec`.
        overrides: As for `load_spec`.

    Raises:
        SpecError: As from `load_spec`.
    """
    return _checked(_document(given, overrides))


def notes(spec: SweepSpec) -> list[str]:
    """Return warnings about valid but unlikely settings, such as a space smaller than the number of trials."""
    return [*_file_notes(spec), *_size_notes(spec), *_space_notes(spec), *_group_notes(spec), *augment_notes(spec)]


def _document(given: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None) -> Document:
    need_overrides(overrides)
    source = given if isinstance(given, Mapping) else sweep_file(given)
    document = Document(source)
    for dotted, value in (overrides or {}).items():
        document.override(dotted, value)
    if isinstance(source, Path):
        document.values.setdefault("name", source.stem)
    import_from(str(Path.cwd()))
    return document


def _size_notes(spec: SweepSpec) -> list[str]:
    own, further = training_images(spec)
    return [note] if own and (note := batch_note(spec, own + further)) else []


def _file_notes(spec: SweepSpec) -> list[str]:
    if not spec.dataset.skip_unreadable:
        return []
    dataset, source = datasets.get(spec.dataset.name), source_of(spec)
    unreadable = dataset.unreadable(source)
    if folder := spec.dataset.unlabelled_images(dataset.describe(source).input_shape):
        unreadable["unlabelled"] = folder.unreadable()
    skipped = {split: len(lines) for split, lines in unreadable.items() if lines}
    return [f"unreadable images are skipped: {counted(skipped)}"] if skipped else []


def _group_notes(spec: SweepSpec) -> list[str]:
    by_width = "width" in spec.scheduler.group_by and not spec.search_space.finite_widths
    if named(spec.scheduler.name)[0] == "none" or not by_width:
        return []
    return [
        "scheduler.group_by: width is drawn from a range, so trials of all widths are compared, less the trend over "
        "log(width)"
    ]


def _space_notes(spec: SweepSpec) -> list[str]:
    trials, there = spec.search.trials, configurations(spec.search_space)
    if there == 1:
        return ["the space holds one configuration: nothing is searched"]
    if there >= trials:
        return []
    ends = "the search ends after them" if spec.search.sampler == "grid" else "some are tried more than once"
    return [f"search.trials is {trials}, but the space holds {there:.0f} configurations: {ends}"]


def _checked(document: Document) -> SweepSpec:
    """Return the spec after every check that needs no model.

    Raises:
        SpecError: With every fault; a faulty key hides only faults that depend on it.
    """
    faults: list[tuple[Keys, str]] = []
    repair = Repair(document.values, ())
    try:
        SweepSpec.model_validate(document.values)
    except ValidationError as error:
        faults = list(schema_faults(error, document.values))
        repair = repaired(document.values, error)
    spec, chains = resolved(SweepSpec.model_validate(repair.values))
    spec = with_defaults(spec)
    faults += chains
    spec = with_absolute_paths(spec)
    try:
        spec = _with_folders(spec)
    except ModelError as error:
        faults.append((("teacher", "checkpoint"), str(error)))
    faults += [(keys, message) for sections, keys, message in relations(spec) if repair.allows(sections, keys)]
    faults += _lost_faults(spec)
    if faults:
        raise SpecError(document.faults(faults))
    return spec


def _lost_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    """Yield the methods of another process, for which the results of its own sweep have a stand-in."""
    for name in sorted(user_objects(spec.space)):
        try:
            _ = given(name) if is_given(name) else None
        except InputError as error:
            yield ("space", "method"), str(error)


def with_absolute_paths(spec: SweepSpec) -> SweepSpec:
    """Return the spec with absolute paths, because trials may run in another directory."""
    texts = spec.dataset.text
    if texts.tokenizer:
        texts = texts.model_copy(update={"tokenizer": Place.of(texts.tokenizer).text})

    unlabelled = spec.dataset.unlabelled
    if unlabelled is not None:
        unlabelled = unlabelled.model_copy(update={"root": Place.of(unlabelled.root).text})

    def absolute(teacher: TeacherSpec) -> TeacherSpec:
        checkpoint = teacher.checkpoint
        if checkpoint is None or checkpoint.startswith(SHIPPED):
            return teacher
        return teacher.model_copy(update={"checkpoint": Place.of(checkpoint).text})

    return spec.replaced(
        dataset=spec.dataset.model_copy(
            update={"root": Place.of(spec.dataset.root).text, "unlabelled": unlabelled, "text": texts}
        ),
        teacher=absolute(spec.teacher),
        teachers={name: absolute(teacher) for name, teacher in spec.teachers.items()},
        search=spec.search.model_copy(update={"warm_start": [Place.of(path).text for path in spec.search.warm_start]}),
        storage=Place.of(spec.storage).text,
        tracking=spec.tracking.absolute(),
    )


def _with_folders(spec: SweepSpec) -> SweepSpec:
    """Return the spec with the options that a teacher's folder decides; a folder is one that transformers wrote.

    Raises:
        ModelError: If it holds another model or no weights.
    """

    def known(teacher: TeacherSpec) -> TeacherSpec:
        folder = Path(teacher.checkpoint or "")
        if not teacher.model.startswith(transformers.FAMILY) or not transformers.is_folder(folder):
            return teacher
        options = transformers.options_of(folder, teacher.model) | teacher.options
        return teacher.model_copy(update={"options": options})

    named = {name: known(teacher) for name, teacher in spec.teachers.items()}
    return spec.replaced(teacher=known(spec.teacher), teachers=named)
