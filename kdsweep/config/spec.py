"""The sweep file as types. `kdsweep.config.load` reads one and reports every fault at once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from kdsweep import tasks
from kdsweep.config import yaml as document
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import SpecError
from kdsweep.search.section import ObjectiveSection, SchedulerSection, SearchSection
from kdsweep.search.space import SearchSpace
from kdsweep.section import Count, Rate, Section, Weight
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal
from kdsweep.training.section import OptimizationSpec, TrainSpec


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
    options: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str | None = None
    train: OptimizationSpec = OptimizationSpec()
    cache_gb: Weight = 8.0


class StudentSpec(Section):
    """The student; its width is searched."""

    model: str
    options: dict[str, Any] = Field(default_factory=dict)


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
        """`space`, which knows the training settings that it leaves alone."""
        return SearchSpace.parse(self.space).with_default("lr", self.train.lr).beside(self.train)

    @cached_property
    def goal(self) -> Goal:
        """What is best, and whether that is the largest or the smallest.

        Raises:
            InputError: If the task has no such metric; a resolved spec is taken at its word.
        """
        metric, mode = self.objective.metric, self.objective.mode
        return Goal(metric, mode if mode != "auto" else tasks.of(self.dataset).metric(metric).mode)

    @property
    def sweep_dir(self) -> SweepDir:
        """Where the sweep lies."""
        return SweepDir(Path(self.storage) / self.name)

    def comparable(self) -> dict[str, Any]:
        """The resolved values, to tell whether two specs ask for the same sweep."""
        return self.model_dump() | {"space": self.search_space.written()}

    def replaced(self, **sections: Any) -> SweepSpec:
        """The spec with other values of some top-level keys."""
        copy = self.model_copy(update=sections)
        for cached in ("search_space", "goal"):  # a copy takes cached properties along
            copy.__dict__.pop(cached, None)
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
