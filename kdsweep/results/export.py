"""Export students as files anyone can load: safetensors, JSON and a model card, without pickle or code."""

from __future__ import annotations

import json
import math
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdsweep import datasets, methods, models, tasks
from kdsweep.datasets import Dataset, Source
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import CheckpointError, DataError, InputError, KdsweepError
from kdsweep.lazy import nn, torch
from kdsweep.registry import is_user_object
from kdsweep.results.frames import Results
from kdsweep.storage import weights
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import TrialDir
from kdsweep.tasks.metrics import Goal, is_fraction, shown, shown_gain
from kdsweep.training.evaluate import evaluate
from kdsweep.training.trainer import best_value

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


class StudentConfig(BaseModel):
    """`config.json` of an exported student: everything needed to rebuild and assess it.

    Attributes:
        format: Version of the file format.
        model: Name of the model; it is rebuilt from `model`, `width` and `options`.
        width: Multiplier for the number of channels.
        options: Further model arguments.
        head: Kind and shapes of the method's inference head; empty if it has none.
        task: Name of the task.
        input_shape: Shape of one sample; (channels, height, width) for images.
        class_names: Class names in the order of the logits.
        mean: Mean per channel of images scaled to 0..1; empty for other tasks.
        std: Standard deviation per channel, likewise.
        parameters: Number of parameters.
        size_mb: Size of parameters and buffers, in MiB.
        dataset: The `dataset` section of the sweep; together with `seed` it determines the validation split.
        seed: Seed of the sweep.
        settings: The trial's configuration.
        confirmed: Means and standard deviations over fresh seeds; empty if the trial was not confirmed.
        teacher: Description of the teacher.
        sweep: Name of the sweep.
        trial: Key of the trial.
        kdsweep: Version of kdsweep that wrote the file.

    The objective of these weights on the validation split is an additional key, `val_NAME`.
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
        """Value of the objective on the validation split, by its column `val_NAME`."""
        return dict(self.__pydantic_extra__)


def export_students(results: Results, out: Path, top: int = 3, trial: str = "") -> list[Path]:
    """Export students of a sweep; see `Results.export`."""
    chosen = [results.trial(trial)["trial"]] if trial else results.distinct(top)["trial"]
    keys = [str(key) for key in chosen]
    if not keys:
        raise InputError(f"{results.path}: no trial has finished an epoch yet; export once one has")
    for key in keys:
        _need_weights(results, key)
    return [_export(results, key, out / f"{results.spec.name}-{key}") for key in keys]


def load_student(path: str | Path, *, trust_code: bool = False) -> nn.Module:
    """Load an exported student.

    Args:
        path: The student's folder.
        trust_code: Whether to import user code (`package.module:function`) that the student refers to.

    Returns:
        A module in eval mode that takes images [B, C, H, W] scaled to 0..1, or samples of another task, and returns
        logits [B, classes].

    Raises:
        InputError: If the folder is not an exported student, or is damaged.
    """
    folder = Path(path)
    config = read_config(folder)
    kind = str(config.head.get("kind", ""))
    for what, name in (("model", config.model), ("head", kind), ("task", config.task)):
        if is_user_object(name) and not trust_code:
            raise InputError(
                f"{folder}: its {what} is user code, {name!r}; pass trust_code=True (--trust-code) if you trust it"
            )
    model = _rebuilt(config, weights.load(folder / WEIGHTS), f"student {folder / WEIGHTS}")
    return _exported(config, model, f"student {folder / WEIGHTS}").eval()


def read_config(folder: Path) -> StudentConfig:
    """Read the `config.json` of an exported student.

    Raises:
        InputError: If it is missing, unreadable or invalid.
    """
    path = folder / CONFIG
    try:
        config = StudentConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: not an exported student: {CONFIG} is missing; accepted: a folder of kdsweep export"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: unreadable: {error}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {_first_fault(error)}") from error
    unknown = [name for name in config.measured if not name.startswith("val_")]
    if unknown or len(config.measured) != 1:
        what = f"{unknown[0]}: unknown key" if unknown else f"found {len(config.measured)} val_NAME keys"
        raise InputError(f"{path}: {what}; accepted: the keys written by kdsweep export, including one val_NAME")
    return config


def evaluate_student(
    folder: Path, split: str, dataset: str = "", root: str = "", *, trust_code: bool = False
) -> dict[str, Any]:
    """Evaluate a student on a data set.

    Args:
        folder: The student's folder.
        split: `test`, `val` or `train`; the last two as in the student's sweep.
        dataset: Name of a data set; empty for the one the student was trained on.
        root: Directory of the data set; empty for the one used in training.
        trust_code: As for `load_student`; also allows importing a user-defined data set.

    Returns:
        student, dataset, split, the number of samples (named by the task's noun, such as `images`) and the metrics,
        such as accuracy (a fraction) and loss.

    Raises:
        InputError: If the student or the data set cannot be read, or if they do not fit each other.
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
            f"{folder}: its data set is user code, {spec.name!r}; pass trust_code=True (--trust-code) if you trust it, "
            "or choose another data set (--dataset)"
        )
    task, found = tasks.get(config.task), datasets.get(spec.name)
    info = found.describe(Source(Path(spec.root), spec.download, spec.resize))
    if info.input_shape != config.input_shape or len(info.class_names) != len(config.class_names):
        raise DataError(
            f"dataset {spec.name!r} has {task.noun} {info.input_shape} of {len(info.class_names)} classes; accepted: "
            f"{config.input_shape} of {len(config.class_names)} classes, as in training"
        )
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
            f"trial {key}: its weights were not kept (only those of the best trials are); "
            f"accepted: {', '.join(kept) or 'none'}"
        )


def _export(results: Results, key: str, folder: Path) -> Path:
    best = results.sweep.trial(key).best
    config = _config(results, key, results.trial(key))
    try:
        _rebuilt(config, weights.load(best), f"weights of trial {key}")
    except CheckpointError as error:
        raise InputError(f"{error}; the weights must be as the sweep wrote them") from error
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(best, folder / WEIGHTS)
    write_json(folder / CONFIG, config.model_dump(mode="json"))
    (folder / CARD).write_text(_card(config), encoding="utf-8")
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
        dataset=spec.dataset.model_dump(),
        seed=spec.seed,
        settings=settings | {"train": spec.train.model_dump()},
        confirmed={name: value for name, value in measured.items() if math.isfinite(value)},
        teacher=results.teacher,
        sweep=spec.name,
        trial=key,
        kdsweep=version("kdsweep"),
        **best,
    )


def _confirmed_columns(goal: Goal) -> list[str]:
    test = goal.test_column
    means = [test, f"plain_{test}", "kd_gain", f"tuned_plain_{test}", "kd_gain_tuned"]
    return ["seeds", *(column for mean in means for column in (mean, f"{mean}_std")), "first_layer_norm"]


def _best_value(trial: TrialDir, recorded: float) -> float:
    """The objective of the saved weights; a running trial may have improved since they were written."""
    kept = weights.metadata(trial.state).get("kdsweep") if trial.state.is_file() else None
    return best_value(json.loads(kept)) if kept else float(recorded)


def _rebuilt(config: StudentConfig, state: weights.State, where: str) -> nn.Module:
    """Build the student and load its weights. Shapes are compared before any large memory is allocated."""
    try:
        model = _build(config, state, where)
    except KdsweepError:
        raise
    except Exception as error:  # builders may raise anything on invalid sizes and options
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{where}: the model in {CONFIG} cannot be built: {reason}") from error
    _exported(config, model, where)
    model.load_state_dict(state, strict=False)
    return model


def _exported(config: StudentConfig, model: nn.Module, where: str) -> nn.Module:
    """Wrap the model in the form that users call."""
    try:
        return tasks.get(config.task).exported(model, config.model_dump())
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(key) for key in first["loc"])
    return f"{where}: {first['msg']}, found {str(first['input'])[:60]!r}"


def _build(config: StudentConfig, state: weights.State, where: str) -> nn.Module:
    """Build the student without weights, after checking that `state` fits it."""
    from kdsweep.models.blocks import HeadedStudent, Undrawn

    with Undrawn():
        head = methods.head(config.head) if config.head else None
    own = state if head is None else {
        name.removeprefix("student."): tensor for name, tensor in state.items() if name.startswith("student.")
    }  # fmt: skip
    classes = len(config.class_names)
    shape = tasks.get(config.task).input_spec(config.input_shape)
    plan = models.blueprint(config.model, shape, classes, config.width, **config.options)
    if plan is not None:
        weights.fit_shapes(plan.state, {name: tuple(tensor.shape) for name, tensor in own.items()}, where)
    model = models.architecture(config.model, shape, classes, config.width, **config.options)
    weights.fit(model, own, where)
    if head is None:
        return model
    headed = HeadedStudent(model, models.taps(config.model, model, shape), head)
    weights.fit(headed, state, where)
    return headed


def _card(config: StudentConfig) -> str:
    """Write the model card (README.md) of a student."""
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
        start = f"\nNorm of the first layer before training: {norm:.4f} (first fresh seed, equal for the plain twin).\n"
    smaller = f", {1 - config.size_mb / teacher['size_mb']:.2%} smaller than its teacher" if teacher else ""
    return f"""# {_text(config.model)} trained on {_text(config.dataset["name"])}

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
| teacher, validation | {shown(column, teacher.get(column, float("nan")))} |

## How it was trained

Teacher: {_text(str(teacher.get("model", "unknown")))} ({_text(str(teacher.get("origin", "")))}), \
{teacher.get("parameters", 0):,} parameters, {teacher.get("size_mb", 0.0):.3f} MB.
{start}
| setting | value |
|---|---|
{settings}
"""


def _confirmed_rows(confirmed: dict[str, float], metric: str) -> list[str]:
    """Table rows for the confirmed metrics; missing ones are omitted."""
    lines = (
        (f"test_{metric}", f"test, these settings on {confirmed['seeds']:.0f} fresh seeds"),
        (f"plain_test_{metric}", "test, plain student with the same settings and seeds"),
        ("kd_gain", "gain over that plain student, paired by seed"),
        (f"tuned_plain_test_{metric}", "test, plain student with the best plain settings of the sweep"),
        ("kd_gain_tuned", "gain over that plain student, paired by seed"),
    )
    rows = []
    for name, meaning in lines:
        if name not in confirmed:
            continue
        as_text = shown_gain if name.startswith("kd_gain") else shown
        unit = " points" if as_text is shown_gain and is_fraction(metric) else ""
        spread = f" ± {as_text(metric, confirmed[f'{name}_std']).lstrip('+')}" if f"{name}_std" in confirmed else ""
        rows.append(f"| {meaning} | {as_text(metric, confirmed[name])}{spread}{unit} |")
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "–"
    return _text(str(value))


def _text(value: str) -> str:
    """Escape Markdown and HTML in text for the card."""
    kept = value.replace("\\", "\\\\").replace("\n", " ").replace("\r", " ")
    for mark in "|`<>[]*_#&~$":
        kept = kept.replace(mark, f"\\{mark}")
    return kept
