"""Students as files anyone can load: safetensors, JSON and a card; no pickle, no code."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdsweep import models
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import CheckpointError, DataError, InputError, KdsweepError, printable
from kdsweep.lazy import nn, torch
from kdsweep.registry import is_user_object
from kdsweep.results.frames import Results
from kdsweep.storage import weights
from kdsweep.storage.files import replace_folder
from kdsweep.storage.paths import TrialDir
from kdsweep.tasks.image.splits import raw_images, source_of
from kdsweep.training.evaluate import evaluate

if TYPE_CHECKING:
    from kdsweep.results.student import Student

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
LONGEST_NUMBER = 30  # digits
CONFIRMED = (
    "seeds",
    "test_accuracy",
    "test_accuracy_std",
    "plain_test_accuracy",
    "plain_test_accuracy_std",
    "kd_gain",
    "kd_gain_std",
    "tuned_plain_test_accuracy",
    "tuned_plain_test_accuracy_std",
    "kd_gain_tuned",
    "kd_gain_tuned_std",
    "first_layer_norm",
)


class Preprocessing(BaseModel):
    """What is done to a picture before a student sees it.

    Attributes:
        resize: Side in pixels of the square that it becomes; 0 leaves its size.
        interpolation: Of the shorter side, antialiased.
        crop: Which square is kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Annotated[int, Field(ge=0, le=4096)] = 0
    interpolation: Literal["bilinear"] = "bilinear"
    crop: Literal["centre"] = "centre"


class StudentConfig(BaseModel):
    """`config.json` of an exported student: everything needed to rebuild and to judge it.

    Attributes:
        format: Of this file.
        model: A model's name; with `width` and `options` it is rebuilt.
        head: Shapes of the head that the method put on the student; empty without one.
        input_shape: (channels, height, width).
        class_names: In the order of the logits.
        mean: Per channel, of images scaled to 0..1.
        std: Per channel.
        preprocessing: What `load_student(...).preprocess` does before that.
        parameters: How many.
        size_mb: Parameters and buffers, in MiB.
        dataset: What it was trained on, but not where it lay; with `seed` its validation split is found again.
        settings: The trial's configuration.
        val_accuracy: Of these weights on the validation split, a fraction.
        confirmed: Means over fresh seeds, where the sweep confirmed this trial.
        teacher: What is known of the teacher.
        sweep: The sweep's name.
        trial: The trial's key.
        kdsweep: The version that wrote it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Annotated[int, Field(ge=1, le=1)] = 1
    model: str
    width: Annotated[float, Field(gt=0)]
    options: dict[str, Any]
    head: dict[str, int | bool]
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing: Preprocessing = Preprocessing()
    parameters: int
    size_mb: float
    dataset: dict[str, Any]
    seed: int
    settings: dict[str, Any]
    val_accuracy: float
    confirmed: dict[str, float]
    teacher: dict[str, Any]
    sweep: str
    trial: str
    kdsweep: str


def export_students(results: Results, out: Path, top: int = 3, trial: str = "") -> list[Path]:
    """Write students of a sweep; see `Results.export`."""
    chosen = [results.trial(trial)["trial"]] if trial else results.distinct(top)["trial"]
    keys = [str(key) for key in chosen]
    if not keys:
        raise InputError(f"{results.path}: no trial has reached an epoch yet; accepted: a sweep with results")
    for key in keys:
        _need_weights(results, key)
    return [_export(results, key, out / f"{results.spec.name}-{key}") for key in keys]


def load_student(path: str | Path, *, trust_code: bool = False) -> Student:
    """Load an exported student.

    Args:
        path: Its folder.
        trust_code: Whether a model that is the user's own `package.module:function` may be imported.

    Returns:
        A module in eval mode that takes images [B, C, H, W], scaled to 0..1 or of uint8, and returns logits
        [B, classes]. Its `class_names` are in their order; its `preprocess(image)` makes a picture ready.

    Raises:
        InputError: If the folder is no student, or is damaged.
    """
    folder = Path(path)
    config = read_config(folder)
    if is_user_object(config.model) and not trust_code:
        raise InputError(
            f"{folder}: its model is the code {config.model!r}; accepted: trust_code=True, if you trust that code"
        )
    from kdsweep.results.student import Student, check_values

    where = f"student {folder / WEIGHTS}"
    state = weights.load(folder / WEIGHTS)
    model = _rebuilt(config, state, where)
    check_values(model, weights.fit(model, state, where), where)
    parts = models.normalised(model, config.mean, config.std)
    student = Student(parts, config.class_names, config.input_shape, config.preprocessing.resize)
    student.eval()
    return student


def read_config(folder: Path) -> StudentConfig:
    """Read `config.json` of a student.

    Raises:
        InputError: If it is missing or not what kdsweep writes.
    """
    path = folder / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
        return StudentConfig.model_validate(
            json.loads(text, parse_float=_finite, parse_constant=_finite, parse_int=_whole)
        )
    except FileNotFoundError:
        raise InputError(f"{folder}: no student, it holds no {CONFIG}; accepted: a folder of kdsweep export") from None
    except ValidationError as error:
        raise InputError(f"{path}: {_first_fault(error)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: unreadable: {error}") from error


def _finite(written: str) -> float:
    value = float(written)
    if not math.isfinite(value):
        raise ValueError(f"found {written[:20]}; accepted: finite numbers")
    return value


def _whole(written: str) -> int:
    if len(written) > LONGEST_NUMBER:
        raise ValueError(f"found a number of {len(written)} digits; accepted: at most {LONGEST_NUMBER}")
    return int(written)


def evaluate_student(
    folder: Path, split: str, dataset: str = "", root: str = "", *, trust_code: bool = False
) -> dict[str, Any]:
    """Judge a student on a data set.

    Args:
        folder: The student's folder.
        split: `test`, or `val` and `train` as its sweep split them.
        dataset: A data set's name; empty is the student's own.
        root: Where the data set lies; empty is `data`, as in a sweep file.
        trust_code: As for `load_student`; also whether a data set that is the user's own function may be imported.

    Returns:
        student, dataset, split, images, accuracy (a fraction), loss.

    Raises:
        InputError: If the student or the data set cannot be read, or they do not fit.
    """
    config = read_config(folder)
    student = load_student(folder, trust_code=trust_code)
    given = {"name": dataset} if dataset else {}
    given |= {"root": str(Path(root).expanduser().absolute())} if root else {}
    try:
        spec = DatasetSpec.model_validate(config.dataset | given)
    except ValidationError as error:
        raise InputError(f"{folder / CONFIG}: dataset: {_first_fault(error)}") from error
    if is_user_object(spec.name) and not dataset and not trust_code:
        raise InputError(
            f"{folder}: its data set is the code {spec.name!r}; accepted: trust_code=True (--trust-code), if you trust "
            "that code, or another data set (--dataset)"
        )
    source, found = source_of(spec)
    info = found.describe(source)
    if info.input_shape != config.input_shape or len(info.class_names) != len(config.class_names):
        raise DataError(
            f"dataset {spec.name!r} has images {info.input_shape} of {len(info.class_names)} classes; accepted: "
            f"{config.input_shape} of {len(config.class_names)}, which the student was trained on"
        )
    pairs = enumerate(zip(info.class_names, config.class_names, strict=True))
    other = next((f"class {at} is {its!r}; accepted: {own!r}" for at, (its, own) in pairs if its != own), "")
    if other:
        raise DataError(f"dataset {spec.name!r}: its {other}, which the student's logit {other.split()[1]} stands for")
    plain = raw_images(spec, config.seed, split)
    accuracy, loss = evaluate(student.to(memory_format=torch.channels_last), plain)
    return {
        "student": str(folder),
        "dataset": spec.name,
        "split": split,
        "images": len(plain),
        "accuracy": accuracy,
        "loss": loss,
    }


def _need_weights(results: Results, key: str) -> None:
    best = results.sweep.trial(key).best
    if not best.is_file():
        kept = sorted(path.parent.name for path in results.sweep.trials.glob(f"*/{best.name}"))
        raise InputError(
            f"trial {key}: its weights were not kept, only the best trials' are; accepted: {', '.join(kept) or 'none'}"
        )


def _export(results: Results, key: str, folder: Path) -> Path:
    best = results.sweep.trial(key).best
    config = _config(results, key, results.trial(key))
    try:
        _rebuilt(config, weights.load(best), f"weights of trial {key}")
    except CheckpointError as error:
        raise InputError(f"{error}; accepted: weights as the sweep wrote them") from error
    described = json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
    files = {WEIGHTS: best.read_bytes(), CONFIG: described.encode(), CARD: _card(config).encode()}
    try:
        replace_folder(folder, files)
    except OSError as error:
        raise InputError(
            f"--out {folder}: cannot be written: {error.strerror or error}; accepted: a directory with room to write to"
        ) from error
    return folder


def _config(results: Results, key: str, row: dict[str, Any]) -> StudentConfig:
    spec = results.spec
    settings = results.config(key)
    described = json.loads(results.sweep.data.read_text())
    confirmed = results.confirmed
    own = confirmed[confirmed["trial"] == key] if not confirmed.empty else confirmed
    measured = {name: float(own.iloc[0][name]) for name in CONFIRMED} if not own.empty else {}
    return StudentConfig(
        model=spec.student.model,
        width=float(settings["width"]),
        options=spec.student.options,
        head=json.loads(weights.metadata(results.sweep.trial(key).best).get("head", "{}")),
        input_shape=tuple(described["input_shape"]),
        class_names=tuple(described["class_names"]),
        mean=tuple(described["mean"]),
        std=tuple(described["std"]),
        parameters=int(row["parameters"]),
        size_mb=float(row["size_mb"]),
        preprocessing=Preprocessing(resize=spec.dataset.resize),
        dataset=spec.dataset.model_dump(exclude={"root"}),
        seed=spec.seed,
        settings=settings | {"train": spec.train.model_dump()},
        val_accuracy=_val_accuracy(results.sweep.trial(key), row),
        confirmed={name: value for name, value in measured.items() if math.isfinite(value)},
        teacher=results.teacher | _without_folder(results.teacher.get("origin")),
        sweep=spec.name,
        trial=key,
        kdsweep=version("kdsweep"),
    )


def _without_folder(origin: str | None) -> dict[str, str]:
    """A teacher's origin without the folder of this machine that its checkpoint lay in."""
    return {"origin": Path(origin).name} if origin and Path(origin).is_absolute() else {}


def _val_accuracy(trial: TrialDir, row: dict[str, Any]) -> float:
    """What the kept weights reached; a trial that still runs may be further than when they were written."""
    kept = weights.metadata(trial.state).get("kdsweep") if trial.state.is_file() else None
    return float(json.loads(kept)["best_accuracy"] if kept else row["val_accuracy"])


def _rebuilt(config: StudentConfig, state: weights.State, where: str) -> nn.Module:
    """The student with its weights; no memory is taken before its shapes are known to be theirs."""
    try:
        with torch.device("meta"):
            state = weights.fit(_build(config), state, where)
        model = _build(config)
    except KdsweepError:
        raise
    except Exception as error:  # on sizes and options that somebody made up, a builder raises nearly anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{where}: {CONFIG} describes no model that can be built: {reason}") from error
    if len(config.mean) != config.input_shape[0]:
        raise InputError(f"{where}: {len(config.mean)} means for {config.input_shape[0]} channels")
    model.load_state_dict(state, strict=False)
    return model


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(key) for key in first["loc"])
    return f"{where}: {first['msg']}, found {str(first['input'])[:60]!r}"


def _build(config: StudentConfig) -> nn.Module:
    classes = len(config.class_names)
    model = models.architecture(config.model, config.input_shape, classes, config.width, **config.options)
    if not config.head:
        return model
    from kdsweep.methods.adapters.head import TransferHead
    from kdsweep.models.blocks import HeadedStudent

    taps = models.taps(config.model, model, config.input_shape)
    return HeadedStudent(model, taps, TransferHead(**config.head))  # type: ignore[arg-type]


def _card(config: StudentConfig) -> str:
    """The README of a student."""
    searched = {key: value for key, value in config.settings.items() if key != "train"}
    used = {**searched, **{key: value for key, value in config.settings["train"].items() if key not in searched}}
    settings = "\n".join(f"| {key} | {_cell(value)} |" for key, value in used.items())
    teacher = config.teacher
    accuracies = [f"| validation (selected by) | {config.val_accuracy:.2%} |"]
    start = ""
    if config.confirmed:
        accuracies += _confirmed_rows(config.confirmed)
        norm = config.confirmed["first_layer_norm"]
        start = f"\nIts first layer's norm before training was {norm:.4f} (first fresh seed), as its plain twin's.\n"
    smaller = f", {1 - config.size_mb / teacher['size_mb']:.2%} smaller than its teacher" if teacher else ""
    return f"""# {_text(config.model)} distilled on {_text(config.dataset["name"])}

{config.parameters:,} parameters, {config.size_mb:.3f} MB{smaller}. Trial {config.trial} of the sweep
{_text(config.sweep)}, made with kdsweep {config.kdsweep}.

## Load it

```python
import kdsweep

student = kdsweep.load_student(".")  # this folder
logits = student(images)  # images [B, {", ".join(str(size) for size in config.input_shape)}] scaled to 0..1
```

`student.preprocess(picture)` makes a PIL image or a file ready for it, and `student.class_names` names its logits. It
normalises its own input (mean {_cell(list(config.mean))}, std {_cell(list(config.std))}). Classes, in the order of
the logits: {", ".join(_text(name) for name in config.class_names)}.

## Accuracy

| measured on | accuracy |
|---|---|
{chr(10).join(accuracies)}
| its teacher, validation | {teacher.get("val_accuracy", float("nan")):.2%} |

## How it was trained

Teacher: {_text(str(teacher.get("model", "unknown")))} ({_text(str(teacher.get("origin", "")))}), \
{teacher.get("parameters", 0):,} parameters, {teacher.get("size_mb", 0.0):.3f} MB.
{start}
| setting | value |
|---|---|
{settings}
"""


def _confirmed_rows(confirmed: dict[str, float]) -> list[str]:
    """What confirmation measured; what it did not is left out."""
    lines = (
        ("test_accuracy", f"test, {confirmed['seeds']:.0f} fresh seeds of these settings"),
        ("plain_test_accuracy", "test, plain student, same settings and seeds"),
        ("kd_gain", "gain over it, paired by seed"),
        ("tuned_plain_test_accuracy", "test, plain student, the best of the sweep's plain settings"),
        ("kd_gain_tuned", "gain over it, paired by seed"),
    )
    rows = []
    for name, meaning in lines:
        if name not in confirmed:
            continue
        gain = name.startswith("kd_gain")
        value = f"{confirmed[name] * 100:+.2f} points" if gain else f"{confirmed[name]:.2%}"
        spread = confirmed.get(f"{name}_std")
        told = "" if spread is None else f" ± {spread * 100:.2f} points" if gain else f" ± {spread:.2%}"
        rows.append(f"| {meaning} | {value}{told} |")
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "–"
    return _text(str(value))


def _text(value: str) -> str:
    """Text that cannot break out of the card's Markdown."""
    kept = printable(value.replace("\n", " ").replace("\r", " ")).replace("\\", "\\\\")
    for mark in "|`<>[]*_#&~$":
        kept = kept.replace(mark, f"\\{mark}")
    return kept
