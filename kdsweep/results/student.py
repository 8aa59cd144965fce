"""Exported students: loading and evaluating them."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdsweep import datasets, methods, models, tasks
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import DataError, InputError, KdsweepError, installing
from kdsweep.lazy import nn, torch
from kdsweep.models.given import GivenFactory
from kdsweep.registry import give, given, is_given, is_user_object
from kdsweep.results.confirmed import judged_seeds
from kdsweep.results.student_config import CONFIG, WEIGHTS, StudentConfig, first_fault, read_config
from kdsweep.storage import weights
from kdsweep.storage.fetched import copied
from kdsweep.storage.places import Place
from kdsweep.tasks.metrics import shown
from kdsweep.training.evaluate import evaluate
from kdsweep.words import count_of


def load_student(
    path: str | Path | Place, *, trust_code: bool = False, student: Callable[..., nn.Module] | None = None
) -> nn.Module:
    """Load an exported student.

    Args:
        path: The student's folder; one at a URI is copied to a local cache first.
        trust_code: Whether to import user code (`package.module:function`) that the student refers to.
        student: The function that builds the student, as passed to `kdsweep.sweep`; needed in another process than the
            sweep's, because the folder holds no code.

    Returns:
        A module in eval mode that takes samples and returns logits [B, classes]. An image student takes images
        [B, C, H, W], in 0..1 or of type uint8. It also has `class_names`, in the order of the logits, and
        `preprocess(image)`, which prepares a file or a PIL image; see `kdsweep.tasks.image.student.Student`. A text
        student has `encode(texts)` and `classify(texts)`; see `kdsweep.tasks.text.student.TextStudent`.

    Raises:
        InputError: If the folder is not an exported student, or is damaged.
    """
    with copied(path, "student") as folder:
        return _loaded(folder, trust_code, student)


def _loaded(folder: Path, trust_code: bool, student: Callable[..., nn.Module] | None) -> nn.Module:
    config = read_config(folder)
    kind = str(config.head.get("kind", ""))
    if is_given(config.model):
        _provide(config, student, folder)
    elif student is not None:
        raise InputError(
            f"{folder}: its model is {config.model!r}; accepted: without student, which is for kdsweep.sweep"
        )
    for what, name in (("model", config.model), ("head", kind), ("task", config.task)):
        if is_user_object(name) and not is_given(name) and not trust_code:
            raise InputError(
                f"{folder}: its {what} is user code, {name!r}; pass trust_code=True (--trust-code) if you trust it"
            )
    where = f"student {folder / WEIGHTS}"
    model = rebuilt(config, weights.load(folder / WEIGHTS), where)
    return tasks.get(config.task).opened(exported(config, model, where), folder).eval()


def _provide(config: StudentConfig, student: Callable[..., nn.Module] | None, folder: Path) -> None:
    """Let the model of a student that was made from a Python object be built by the user's function.

    Raises:
        InputError: If there is none, and the process does not have the object.
    """
    if student is not None:
        give(config.model.partition(":")[2], GivenFactory(student))
    try:
        given(config.model)
    except InputError:
        raise InputError(
            f"{folder}: its model is a Python object, so the folder holds its weights but no code; load it in Python: "
            "kdsweep.load_student(folder, student=...) with the function that was passed to kdsweep.sweep"
        ) from None


def evaluate_student(
    student: str | Path | Place, split: str, dataset: str = "", root: str = "", *, trust_code: bool = False
) -> dict[str, Any]:
    """Evaluate a student on a data set.

    Args:
        student: The student's folder, as for `load_student`, or an ONNX file in a local one, which is then run by
            onnxruntime.
        split: `test`, `val` or `train`; the last two as in the student's sweep.
        dataset: Name of a data set; empty for the one the student was trained on.
        root: Directory of the data set; empty for `data`, the default in sweep files.
        trust_code: As for `load_student`; also allows importing a user-defined data set.

    Returns:
        student, dataset, split, the number of samples (named by the task's noun, such as `images`) and the metrics,
        such as accuracy (a fraction) and loss.

    Raises:
        InputError: If the student or the data set cannot be read, or if they do not fit each other.
    """
    with copied(student, "student") as path:
        measured = _evaluated(path, split, dataset, root, trust_code)
    return {"student": str(student), **measured}


def _evaluated(path: Path, split: str, dataset: str, root: str, trust_code: bool) -> dict[str, Any]:
    onnx = path.suffix == ".onnx" and os.path.isfile(path)
    folder = path.parent if onnx else path
    config = read_config(folder)
    model = _onnx_student(path, config) if onnx else load_student(folder, trust_code=trust_code)
    given = {"name": dataset} if dataset else {}
    given |= {"root": Place.of(root).text} if root else {}
    try:
        spec = DatasetSpec.model_validate(config.dataset | given)
    except ValidationError as error:
        raise InputError(f"{folder / CONFIG}: dataset: {first_fault(error)}") from error
    if is_user_object(spec.name) and not dataset and not trust_code:
        raise InputError(
            f"{folder}: its data set is user code, {spec.name!r}; pass trust_code=True (--trust-code) if you trust it, "
            "or choose another data set (--dataset)"
        )
    task, found = tasks.get(config.task), datasets.get(spec.name)
    try:
        info = found.describe(spec.source())
    except DataError as error:
        if not found.labelled and not root:
            raise DataError(
                f"{folder}: was trained on images without labels ({spec.name}), and is evaluated on labelled ones; "
                "accepted: --dataset image_folder --root DIR, or --root DIR with train/ and test/CLASS/IMAGE"
            ) from error
        hint = "" if root else "; if the data set is in another directory, pass --root DIR"
        raise DataError(f"{error}{hint}") from error
    spec = task.spec_beside(spec, folder)
    taken = task.input_of(spec, info)
    if taken != config.input_spec or len(info.class_names) != len(config.class_names):
        raise DataError(
            f"dataset {spec.name!r} has {task.noun} {taken.shape} of {len(info.class_names)} classes; accepted: "
            f"{config.input_shape} of {len(config.class_names)} classes, as in training"
        )
    for index, (found_name, own_name) in enumerate(zip(info.class_names, config.class_names, strict=True)):
        if found_name != own_name:
            raise DataError(
                f"dataset {spec.name!r}: class {index} is {found_name!r}; accepted: {own_name!r}, as in training"
            )
    samples = task.exported_split(spec, config.seed, split)
    if int(samples.labels.min()) < 0:
        raise DataError(
            f"dataset {spec.name!r}: split {split!r} has no labels, so there is nothing to compare with; accepted: a "
            "labelled one, such as --dataset image_folder --root DIR"
        )
    metrics = task.measured((), len(config.class_names))
    measured = evaluate(model.to(memory_format=torch.channels_last), samples, metrics)
    return {"dataset": spec.name, "split": split, task.noun: len(samples), **measured}


def trained_by(student: str | Path | Place) -> str:
    """Which training the weights of a student are from, in a sentence: always the one of the search."""
    with copied(student, "student") as path:
        config = read_config(path.parent if os.path.isfile(path) else path)
    told = f"these weights are from the search, one training with seed {config.seed}"
    # A plain student is no candidate that was judged, so all its fresh seeds count.
    seeds = judged_seeds(config.confirmed) or int(config.confirmed["seeds"]) if config.confirmed else 0
    for name, value in config.confirmed.items():
        if name.startswith("test_") and not name.endswith("_std"):
            told += f"; on {count_of(seeds, 'fresh seed')}, its settings reached a mean {name.replace('_', ' ')} of "
            told += shown(name, float(value))
    return told


def _onnx_student(file: Path, config: StudentConfig) -> nn.Module:
    if file.name not in config.files:
        listed = ", ".join(name for name in config.files if name.endswith(".onnx")) or "none"
        raise InputError(f"{file}: not a file of this student; accepted: its folder, or its ONNX files ({listed})")
    if find_spec("onnxruntime") is None:
        raise InputError(f"{file}: needs onnxruntime: {installing('onnx')}")
    from kdsweep.results.runtime import OnnxStudent

    try:
        return OnnxStudent(file.read_bytes())
    except Exception as error:  # onnxruntime's own exceptions
        raise InputError(f"{file}: damaged: {str(error).splitlines()[0]}; export the student again") from error


def rebuilt(config: StudentConfig, state: weights.State, where: str) -> nn.Module:
    """Build the student and load its weights. Shapes are compared before any large memory is allocated.

    Raises:
        CheckpointError: If the weights do not fit the model, or if they are not finite floating-point numbers.
        InputError: If the model cannot be built.
    """
    try:
        model, state = _build(config, state, where)
    except KdsweepError:
        raise
    except Exception as error:  # builders may raise anything on invalid sizes and options
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{where}: the model in {CONFIG} cannot be built: {reason}") from error
    exported(config, model, where)
    weights.check_values(model, state, where)
    model.load_state_dict(state, strict=False)
    return model


def exported(config: StudentConfig, model: nn.Module, where: str) -> nn.Module:
    """Wrap the model in the form that users call.

    Raises:
        InputError: If the description of the samples does not fit the task.
    """
    try:
        return tasks.get(config.task).exported(model, config.model_dump())
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _build(config: StudentConfig, state: weights.State, where: str) -> tuple[nn.Module, weights.State]:
    """Build the student without weights, check that `state` fits it, and return `state` by the student's names."""
    from kdsweep.models.blocks import HeadedStudent, Undrawn

    with Undrawn():
        head = methods.head(config.head) if config.head else None
    own = state if head is None else weights.below(state, "student.")
    classes = len(config.class_names)
    shape = config.input_spec
    plan = models.blueprint(config.model, shape, classes, config.width, **config.options)
    if plan is not None:
        weights.fit_shapes(plan.state, {name: tuple(tensor.shape) for name, tensor in own.items()}, where)
    model = models.architecture(config.model, shape, classes, config.width, **config.options)
    own = weights.fit(model, own, where)
    if head is None:
        return model, own
    headed = HeadedStudent(model, models.taps(config.model, model, shape), head)
    return headed, weights.fit(headed, state, where)
