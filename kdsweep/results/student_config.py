"""`config.json` of an exported student: what it holds, and reading it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdsweep import datasets, models, tasks
from kdsweep.datasets import Dataset
from kdsweep.errors import InputError
from kdsweep.results.gains import Outcome
from kdsweep.tasks.metrics import shown, shown_gain

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ONNX, TORCH_EXPORT, INT8 = "model.onnx", "model.pt2", "model.int8.onnx"
MAX_DIGITS = 30


class Preprocessing(BaseModel):
    """What the student's `preprocess` does to an image.

    Attributes:
        resize: Side in pixels of the resulting square; 0 keeps the size.
        interpolation: How the shorter side is resized, with antialiasing.
        crop: Which square is kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Annotated[int, Field(ge=0, le=4096)] = 0
    interpolation: Literal["bilinear"] = "bilinear"
    crop: Literal["centre"] = "centre"


class FileFacts(BaseModel):
    """What was measured of a further file of a student, in the library that runs it.

    Attributes:
        size_mb: Size of the file in MiB.
        compared: Number of validation samples.
        equal: For how many of them the file predicts the same class as the student.
        max_difference: Largest absolute difference of a logit over the validation split.
        metrics: Metrics of a quantised file by `SPLIT_NAME`, and those of the student as `float_SPLIT_NAME`.
        versions: Versions of the packages that made and ran the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_mb: float
    compared: int
    equal: int
    max_difference: float
    metrics: dict[str, float] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


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
        vocabulary: Number of tokens of a text student's tokenizer; 0 for other tasks.
        padding: The token that fills up short texts.
        preprocessing: How an image student's `preprocess` prepares images.
        parameters: Number of parameters.
        size_mb: Size of parameters and buffers, in MiB.
        dataset: The `dataset` section of the sweep without `root`; with `seed` it determines the validation split.
        unlabelled: Number of images without labels that it also learnt from.
        skipped: Number of unreadable images that were left out, by split.
        seed: Seed of the sweep.
        settings: The trial's configuration.
        confirmed: Results over fresh seeds and verdicts on the gains; empty if the trial was not confirmed.
        teacher: Description of the teacher.
        sweep: Name of the sweep.
        trial: Key of the trial.
        kdsweep: Version of kdsweep that wrote the file.
        files: Further files of the student by name, such as `model.onnx`, and how well they agree with it.

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
    vocabulary: Annotated[int, Field(ge=0)] = 0
    padding: Annotated[int, Field(ge=0)] = 0
    preprocessing: Preprocessing = Preprocessing()
    parameters: int
    size_mb: float
    dataset: dict[str, Any]
    unlabelled: Annotated[int, Field(ge=0)] = 0
    skipped: dict[str, int] = Field(default_factory=dict)
    seed: int
    settings: dict[str, Any]
    confirmed: dict[str, float | Outcome]
    teacher: dict[str, Any]
    sweep: str
    trial: str
    kdsweep: str
    files: dict[str, FileFacts] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _of_version_0_1_0(cls, config: Any) -> Any:
        """Version 0.1.0 recorded the size of the images only in `dataset`."""
        if not isinstance(config, dict) or not isinstance(config.get("dataset"), dict):
            return config
        return {"preprocessing": {"resize": config["dataset"].get("resize", 0)}} | config

    @property
    def input_spec(self) -> models.InputSpec:
        """Input of the student."""
        return tasks.get(self.task).described_input(self.model_dump(include={"input_shape", "vocabulary", "padding"}))

    @property
    def label_free(self) -> bool:
        """Whether it learnt from images without labels alone; its measure is then the agreement with its teacher."""
        name = str(self.dataset.get("name"))
        return name in datasets.DATASETS and not datasets.DATASETS[name].labelled

    @property
    def measured(self) -> dict[str, float]:
        """Value of the objective on the validation split, by its column `val_NAME`."""
        return dict(self.__pydantic_extra__)


def read_config(folder: Path) -> StudentConfig:
    """Read the `config.json` of an exported student.

    Raises:
        InputError: If it is missing, unreadable or invalid.
    """
    path = folder / CONFIG
    if os.path.isfile(folder):  # unlike Path.is_file, it is False for names that are too long
        raise InputError(f"{folder}: a file; accepted: the student's folder, {folder.parent}, or an ONNX file in it")
    try:
        text = path.read_text(encoding="utf-8")
        config = StudentConfig.model_validate(
            json.loads(text, parse_float=_finite, parse_constant=_finite, parse_int=_integer)
        )
    except FileNotFoundError:
        raise InputError(
            f"{folder}: not an exported student: {CONFIG} is missing; accepted: a folder of kdsweep export"
        ) from None
    except ValidationError as error:
        raise InputError(f"{path}: {first_fault(error)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: unreadable: {error}") from error
    unknown = [name for name in config.measured if not name.startswith("val_")]
    if unknown or len(config.measured) != 1:
        what = f"{unknown[0]}: unknown key" if unknown else f"found {len(config.measured)} val_NAME keys"
        raise InputError(f"{path}: {what}; accepted: the keys written by kdsweep export, including one val_NAME")
    return config


def agreement(config: StudentConfig) -> list[str]:
    """How well the further files of a student agree with it, one line per file."""
    noun = tasks.get(config.task).noun
    return [
        f"{name}: {facts.equal} of {facts.compared} validation {noun} predicted as by the student, largest difference "
        f"of a logit {facts.max_difference:.2g}{_cost_of(facts)}"
        for name, facts in config.files.items()
    ]


def _cost_of(facts: FileFacts) -> str:
    """The accuracies of a quantised file, and how far they are from the student's; empty for other files."""
    parts = []
    for split, label in (("val", "validation"), ("test", "test")):
        name = f"{split}_accuracy"
        if name in facts.metrics:
            own, student = facts.metrics[name], facts.metrics[f"float_{name}"]
            change = f"{shown_gain('accuracy', own - student)} points"
            parts.append(f"{label} accuracy {shown(name, own)}, the student's {shown(name, student)} ({change})")
    return f"; {'; '.join(parts)}" if parts else ""


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"found {literal[:20]}; accepted: finite numbers")
    return value


def _integer(literal: str) -> int:
    if len(literal) > MAX_DIGITS:
        raise ValueError(f"found a number of {len(literal)} digits; accepted: at most {MAX_DIGITS}")
    return int(literal)


def first_fault(error: ValidationError) -> str:
    """Return where the first fault is, what is wrong and what was found."""
    first = error.errors()[0]
    where = ".".join(str(key) for key in first["loc"])
    return f"{where}: {first['msg']}, found {str(first['input'])[:60]!r}"
