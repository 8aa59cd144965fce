"""Students as files anyone can load: safetensors, JSON and a card; no pickle, no code."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdsweep import datasets, methods, models, tasks
from kdsweep.datasets import Dataset, Source
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import CheckpointError, DataError, InputError, KdsweepError, printable
from kdsweep.lazy import nn, torch
from kdsweep.registry import is_user_object
from kdsweep.results.frames import Results
from kdsweep.storage import weights
from kdsweep.storage.files import replace_folder
from kdsweep.storage.paths import TrialDir
from kdsweep.tasks.metrics import Goal, is_fraction, shown, shown_gain
from kdsweep.training.evaluate import evaluate
from kdsweep.training.trainer import best_value

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
LONGEST_NUMBER = 30  # digits


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
        head: Kind and shapes of the head that the method put on the student; empty without one.
        task: What it was trained for.
        input_shape: Of one sample; (channels, height, width) of an image.
        class_names: In the order of the logits.
        mean: Per channel, of images scaled to 0..1; empty for other tasks.
        std: Per channel, likewise.
        preprocessing: What an image student's `preprocess` does before that.
        parameters: How many.
        size_mb: Parameters and buffers, in MiB.
        dataset: What it was trained on, but not where it lay; with `seed` its validation split is found again.
        settings: The trial's configuration.
        confirmed: Means over fresh seeds, where the sweep confirmed this trial.
        teacher: What is known of the teacher.
        sweep: The sweep's name.
        trial: The trial's key.
        kdsweep: The version that wrote it.

    The sweep's objective, of these weights on the validation split, is a key of its own: `val_NAME`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, float] = Field(init=False)

    format: Annotated[int, Field(ge=1, le=1)] = 1
    model: str
    width: Annotated[float, Field(gt=0, le=100)]
    options: dict[str, Any]
    head: dict[str, int | bool | str]
    task: str = Dataset.task
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    preprocessing: Preprocessing = Preprocessing()
    parameters: int
    size_mb: float
    dataset: dict[str, Any]
    seed: int
    settings: dict[str, Any]
    confirmed: dict[str, float]
    teacher: dict[str, Any]
    sweep: str
    trial: str
    kdsweep: str

    @property
    def measured(self) -> dict[str, float]:
        """The objective on the validation split."""
        return dict(self.__pydantic_extra__)


def export_students(results: Results, out: Path, top: int = 3, trial: str = "") -> list[Path]:
    """Write students of a sweep; see `Results.export`."""
    chosen = [results.trial(trial)["trial"]] if trial else results.distinct(top)["trial"]
    keys = [str(key) for key in chosen]
    if not keys:
        raise InputError(f"{results.path}: no trial has reached an epoch yet; accepted: a sweep with results")
    for key in keys:
        _need_weights(results, key)
    return [_export(results, key, out / f"{results.spec.name}-{key}") for key in keys]


def load_student(path: str | Path, *, trust_code: bool = False) -> nn.Module:
    """Load an exported student.

    Args:
        path: Its folder.
        trust_code: Whether a model that is the user's own `package.module:function` may be imported.

    Returns:
        A module in eval mode that returns logits [B, classes]. It takes the samples of its task: images [B, C, H, W],
        scaled to 0..1 or of uint8. One for images also has `class_names`, in the order of the logits, and
        `preprocess(image)`, which makes a picture ready; see `kdsweep.tasks.image.student.Student`.

    Raises:
        InputError: If the folder is no student, or is damaged.
    """
    folder = Path(path)
    config = read_config(folder)
    kind = str(config.head.get("kind", ""))
    for what, name in (("model", config.model), ("head", kind), ("task", config.task)):
        if is_user_object(name) and not trust_code:
            raise InputError(
                f"{folder}: its {what} is the code {name!r}; accepted: trust_code=True, if you trust that code"
            )
    where = f"student {folder / WEIGHTS}"
    state = weights.load(folder / WEIGHTS)
    model = _rebuilt(config, state, where)
    weights.check_values(model, weights.fit(model, state, where), where)
    return _exported(config, model, where).eval()


def read_config(folder: Path) -> StudentConfig:
    """Read `config.json` of a student.

    Raises:
        InputError: If it is missing or not what kdsweep writes.
    """
    path = folder / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
        config = StudentConfig.model_validate(
            json.loads(text, parse_float=_finite, parse_constant=_finite, parse_int=_whole)
        )
    except FileNotFoundError:
        raise InputError(f"{folder}: no student, it holds no {CONFIG}; accepted: a folder of kdsweep export") from None
    except ValidationError as error:
        raise InputError(f"{path}: {_first_fault(error)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: unreadable: {error}") from error
    unknown = [name for name in config.measured if not name.startswith("val_")]
    if unknown or len(config.measured) != 1:
        what = f"{unknown[0]}: unknown key" if unknown else f"{len(config.measured)} metrics on the validation split"
        raise InputError(f"{path}: {what}; accepted: the keys that kdsweep export writes, with one val_NAME")
    return config


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
        student, dataset, split, images (or what the samples of its task are called), and its metrics: accuracy (a
        fraction), loss.

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
    task, found = tasks.get(config.task), datasets.get(spec.name)
    info = found.describe(Source(Path(spec.root), spec.download, spec.resize))
    if info.input_shape != config.input_shape or len(info.class_names) != len(config.class_names):
        raise DataError(
            f"dataset {spec.name!r} has {task.noun} {info.input_shape} of {len(info.class_names)} classes; accepted: "
            f"{config.input_shape} of {len(config.class_names)}, which the student was trained on"
        )
    pairs = enumerate(zip(info.class_names, config.class_names, strict=True))
    other = next((f"class {at} is {its!r}; accepted: {own!r}" for at, (its, own) in pairs if its != own), "")
    if other:
        raise DataError(f"dataset {spec.name!r}: its {other}, which the student's logit {other.split()[1]} stands for")
    samples = task.exported_split(spec, config.seed, split)
    measured = evaluate(
        student.to(memory_format=torch.channels_last), samples, {name: task.metrics[name] for name in task.always}
    )
    return {"student": str(folder), "dataset": spec.name, "split": split, task.noun: len(samples), **measured}


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
    columns = _confirmed_columns(results.goal)
    measured = {name: float(own.iloc[0][name]) for name in columns} if not own.empty else {}
    best: dict[str, Any] = {results.goal.column: _best_value(results.sweep.trial(key), row[results.goal.column])}
    return StudentConfig(
        model=spec.student.model,
        width=float(settings["width"]),
        options=spec.student.options,
        head=json.loads(weights.metadata(results.sweep.trial(key).best).get("head", "{}")),
        task=described.get("task", Dataset.task),
        input_shape=tuple(described["input_shape"]),
        class_names=tuple(described["class_names"]),
        mean=tuple(described.get("mean", ())),
        std=tuple(described.get("std", ())),
        parameters=int(row["parameters"]),
        size_mb=float(row["size_mb"]),
        preprocessing=Preprocessing(resize=spec.dataset.resize),
        dataset=spec.dataset.model_dump(exclude={"root"}),
        seed=spec.seed,
        settings=settings | {"train": spec.train.model_dump()},
        confirmed={name: value for name, value in measured.items() if math.isfinite(value)},
        teacher=results.teacher | _without_folder(results.teacher.get("origin")),
        sweep=spec.name,
        trial=key,
        kdsweep=version("kdsweep"),
        **best,
    )


def _without_folder(origin: str | None) -> dict[str, str]:
    """A teacher's origin without the folder of this machine that its checkpoint lay in."""
    return {"origin": Path(origin).name} if origin and Path(origin).is_absolute() else {}


def _confirmed_columns(goal: Goal) -> list[str]:
    test = goal.test_column
    means = [test, f"plain_{test}", "kd_gain", f"tuned_plain_{test}", "kd_gain_tuned"]
    return ["seeds", *(column for mean in means for column in (mean, f"{mean}_std")), "first_layer_norm"]


def _best_value(trial: TrialDir, recorded: float) -> float:
    """What the kept weights reached; a trial that still runs may be further than when they were written."""
    kept = weights.metadata(trial.state).get("kdsweep") if trial.state.is_file() else None
    return best_value(json.loads(kept)) if kept else float(recorded)


def _rebuilt(config: StudentConfig, state: weights.State, where: str) -> nn.Module:
    """The student with its weights; no memory is filled before its shapes are known to be theirs."""
    try:
        model, state = _build(config, state, where)
    except KdsweepError:
        raise
    except Exception as error:  # on sizes and options that somebody made up, a builder raises nearly anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{where}: {CONFIG} describes no model that can be built: {reason}") from error
    _exported(config, model, where)
    model.load_state_dict(state, strict=False)
    return model


def _exported(config: StudentConfig, model: nn.Module, where: str) -> nn.Module:
    """The model as users call it."""
    try:
        return tasks.get(config.task).exported(model, config.model_dump())
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(key) for key in first["loc"])
    return f"{where}: {first['msg']}, found {str(first['input'])[:60]!r}"


def _build(config: StudentConfig, state: weights.State, where: str) -> tuple[nn.Module, weights.State]:
    """The student without weights, and `state` by its names, if it fits."""
    from kdsweep.models.blocks import HeadedStudent, Undrawn

    with Undrawn():
        head = methods.head(config.head) if config.head else None
    own = state if head is None else weights.below(state, "student.")
    classes = len(config.class_names)
    shape = tasks.get(config.task).input_spec(config.input_shape)
    plan = models.blueprint(config.model, shape, classes, config.width, **config.options)
    if plan is not None:
        weights.fit_shapes(plan.state, {name: tuple(tensor.shape) for name, tensor in own.items()}, where)
    model = models.architecture(config.model, shape, classes, config.width, **config.options)
    own = weights.fit(model, own, where)
    if head is None:
        return model, own
    headed = HeadedStudent(model, models.taps(config.model, model, shape), head)
    return headed, weights.fit(headed, state, where)


def _card(config: StudentConfig) -> str:
    """The README of a student."""
    searched = {key: value for key, value in config.settings.items() if key != "train"}
    used = {**searched, **{key: value for key, value in config.settings["train"].items() if key not in searched}}
    settings = "\n".join(f"| {key} | {_cell(value)} |" for key, value in used.items())
    teacher = config.teacher
    task = tasks.get(config.task)
    ((column, value),) = config.measured.items()
    metric = column.removeprefix("val_")
    rows = [f"| validation (selected by) | {shown(column, value)} |"]
    start = ""
    if config.confirmed:
        rows += _confirmed_rows(config.confirmed, metric)
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
{task.exported_call(config.input_shape)}
```

{task.exported_note(config.model_dump())} Classes, in the order of
the logits: {", ".join(_text(name) for name in config.class_names)}.

## {metric.replace("_", " ").capitalize()}

| measured on | {metric.replace("_", " ")} |
|---|---|
{chr(10).join(rows)}
| its teacher, validation | {shown(column, teacher.get(column, float("nan")))} |

## How it was trained

Teacher: {_text(str(teacher.get("model", "unknown")))} ({_text(str(teacher.get("origin", "")))}), \
{teacher.get("parameters", 0):,} parameters, {teacher.get("size_mb", 0.0):.3f} MB.
{start}
| setting | value |
|---|---|
{settings}
"""


def _confirmed_rows(confirmed: dict[str, float], metric: str) -> list[str]:
    """What confirmation measured; what it did not is left out."""
    lines = (
        (f"test_{metric}", f"test, {confirmed['seeds']:.0f} fresh seeds of these settings"),
        (f"plain_test_{metric}", "test, plain student, same settings and seeds"),
        ("kd_gain", "gain over it, paired by seed"),
        (f"tuned_plain_test_{metric}", "test, plain student, the best of the sweep's plain settings"),
        ("kd_gain_tuned", "gain over it, paired by seed"),
    )
    rows = []
    for name, meaning in lines:
        if name not in confirmed:
            continue
        gain = name.startswith("kd_gain")
        unit = " points" if gain and is_fraction(metric) else ""
        value = shown_gain(metric, confirmed[name]) if gain else shown(metric, confirmed[name])
        told = f"{value}{unit}"
        if f"{name}_std" in confirmed:
            spread = confirmed[f"{name}_std"]
            told += f" ± {spread * 100:.2f}{unit}" if unit else f" ± {shown(metric, spread)}"
        rows.append(f"| {meaning} | {told} |")
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
