"""The sweep file as types. `kdsweep.loading` reads one and reports every fault at once."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kdsweep.config import yaml as document
from kdsweep.errors import SpecError
from kdsweep.search.space import SearchSpace
from kdsweep.storage.paths import SweepDir

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Optimizer = Literal["adam", "adamw", "amsgrad", "sgd"]
Schedule = Literal["constant", "cosine", "step"]
Precision = Literal["auto", "float32", "bfloat16"]


class Section(BaseModel):
    """A section of a sweep file: unknown keys and loose types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DatasetSpec(Section):
    """Which images, and how they are split and varied.

    Attributes:
        name: A data set of `kdsweep datasets`, or `package.module:function`.
        root: Directory that holds it, or into which it is downloaded.
        augment: How training images are varied: mirrored, or shifted within a border of an eighth and mirrored.
        val_fraction: Share of the training images kept for selection, where the data set has no split of its own.
        subset: Number of training images used, validation included; 0 is all.
        resize: Side in pixels; 0 keeps the size.
        stream: Decode images as they are needed, in processes beside each trial, rather than all of them once.
        download: Whether missing files may be fetched.
        normalize: Mean and spread of the data set, those of ImageNet, or none (0..1).
    """

    name: str
    root: str = "data"
    augment: Literal["none", "flip", "crop_flip"] = "none"
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    subset: Annotated[int, Field(ge=0)] = 0
    resize: Annotated[int, Field(ge=0, le=4096)] = 0
    stream: bool = False
    download: bool = True
    normalize: Literal["dataset", "imagenet", "none"] = "dataset"


class OptimizationSpec(Section):
    """How weights are trained; also how a teacher without a checkpoint is, once.

    Attributes:
        epochs: The full budget; also the horizon of the learning-rate schedule, whenever a trial is stopped.
        milestones: Epochs after which `step` multiplies the rate by `gamma`.
        precision: `auto` is bfloat16 autocast where the device is faster with it.
    """

    epochs: Count = 10
    batch_size: Count = 128
    optimizer: Optimizer = "adam"
    lr: Rate = 1e-3
    weight_decay: Weight = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Schedule = "cosine"
    milestones: list[Count] = []
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    precision: Precision = "auto"


class TeacherSpec(Section):
    """The teacher: a checkpoint, or a model to train.

    Attributes:
        model: A model of `kdsweep models`.
        width: Multiplies its channels.
        options: Further arguments of the model.
        checkpoint: A .safetensors file or a PyTorch state dict; `kdsweep:NAME` is one that comes with kdsweep.
        train: How it is trained otherwise.
        cache_gb: Disk for its outputs, in 1e9 bytes; what needs more is computed in the loop.
    """

    model: str
    width: Rate = 1.0
    options: dict[str, Any] = {}
    checkpoint: str | None = None
    train: OptimizationSpec = OptimizationSpec()
    cache_gb: Weight = 8.0


class StudentSpec(Section):
    """The student; its width is searched."""

    model: str
    options: dict[str, Any] = {}


class TrainSpec(OptimizationSpec):
    """How each student is trained; the space overrides what it searches.

    Attributes:
        task_loss: What the labels are learnt with.
        label_smoothing: Of the cross entropy.
    """

    epochs: Count = 20
    task_loss: Literal["cross_entropy", "multi_margin"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class SearchSection(Section):
    """How configurations are proposed.

    Attributes:
        sampler: Optuna's TPE, random, or every combination of a space of choices.
        trials: How many; `grid` ends earlier when the space does.
        startup_trials: Random ones before TPE begins.
        points: Configurations tried first; what one leaves out is drawn.
    """

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    trials: Count = 64
    startup_trials: Annotated[int, Field(ge=0)] = 16
    points: list[dict[str, Any]] = []


class SchedulerSection(Section):
    """When a trial is stopped early.

    Attributes:
        name: Asynchronous successive halving, or none.
        grace_epochs: The first rung; 0 is a ninth of the budget.
        reduction_factor: Of so many trials at a rung, one goes on.
        group_by: Trials are compared within groups of equal values.
    """

    name: Literal["asha", "none"] = "asha"
    grace_epochs: Annotated[int, Field(ge=0)] = 0
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    group_by: list[str] = ["width"]


class ObjectiveSection(Section):
    """What is best. Losses are not offered: their scale depends on the method."""

    metric: Literal["val_accuracy"] = "val_accuracy"
    mode: Literal["max"] = "max"


class ConstraintsSection(Section):
    """What a student must keep to be trained at all.

    Attributes:
        parameters: At most so many; 0 is no limit.
        size_mb: Parameters and buffers in MiB; 0 is no limit.
    """

    parameters: Annotated[int, Field(ge=0)] = 0
    size_mb: Weight = 0.0


class ConfirmSection(Section):
    """How many of the best are trained again, and on how many fresh seeds; top 0 leaves the stage out."""

    top: Annotated[int, Field(ge=0)] = 3
    seeds: Count = 3


class ResourcesSection(Section):
    """What a trial takes.

    Attributes:
        cpus_per_trial: CPU cores, also the threads of PyTorch.
        gpus_per_trial: A share of a GPU; `auto` is one GPU where the cluster has any, else none.
        max_concurrent: Trials at a time; `auto` is what the cluster holds.
        max_failures: How often a trial whose worker is lost goes on elsewhere.
        step_timeout_seconds: An epoch that takes longer hangs; its worker is ended and the trial goes on elsewhere.
    """

    cpus_per_trial: Count = 1
    gpus_per_trial: Literal["auto"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = "auto"
    max_concurrent: Literal["auto"] | Count = "auto"
    max_failures: Annotated[int, Field(ge=0)] = 5
    step_timeout_seconds: Rate = 3600.0


class SweepSpec(Section):
    """A whole sweep. See `docs/sweep-files.md` for each key."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    dataset: DatasetSpec
    teacher: TeacherSpec
    student: StudentSpec
    space: dict[str, Any]
    train: TrainSpec = TrainSpec()
    search: SearchSection = SearchSection()
    scheduler: SchedulerSection = SchedulerSection()
    objective: ObjectiveSection = ObjectiveSection()
    constraints: ConstraintsSection = ConstraintsSection()
    confirm: ConfirmSection = ConfirmSection()
    resources: ResourcesSection = ResourcesSection()
    storage: str = "runs"

    @cached_property
    def search_space(self) -> SearchSpace:
        """`space`, with the training settings that it leaves alone as constants."""
        return SearchSpace.parse(self.space).with_default("lr", self.train.lr)

    @property
    def sweep_dir(self) -> SweepDir:
        """Where the sweep lies."""
        return SweepDir(Path(self.storage) / self.name)

    @property
    def grace_epochs(self) -> int:
        """The first rung, in epochs."""
        return self.scheduler.grace_epochs or math.ceil(self.train.epochs / 9)

    def comparable(self) -> dict[str, Any]:
        """The resolved values, to tell whether two specs ask for the same sweep."""
        return self.model_dump() | {"space": self.search_space.written()}

    def replaced(self, **sections: Any) -> SweepSpec:
        """The spec with other values of some top-level keys."""
        copy = self.model_copy(update=sections)
        copy.__dict__.pop("search_space", None)  # a copy takes cached properties along
        return copy

    def save(self, path: Path) -> None:
        """Write the resolved sweep file; reading it gives an equal spec."""
        partial = path.with_suffix(".partial")
        document.dump(self.comparable(), partial, "the sweep file as kdsweep resolved it")
        partial.replace(path)


def read_spec(sweep: SweepDir) -> SweepSpec:
    """The spec of an existing sweep, trusted to have been checked when it was written.

    Raises:
        SpecError: If the file is not what kdsweep wrote.
    """
    try:
        return SweepSpec.model_validate(document.Document(sweep.spec).values)
    except ValueError as error:
        raise SpecError([f"{sweep.spec}:1: not a resolved sweep file: {str(error).splitlines()[0]}"]) from error
