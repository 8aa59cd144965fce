"""The types of a sweep file. `kdsweep.config.load` reads one and reports every fault at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kdsweep import tasks
from kdsweep.config import yaml as document
from kdsweep.datasets.section import DatasetSpec
from kdsweep.distributions import Config
from kdsweep.errors import InputError, SpecError
from kdsweep.registry import is_given
from kdsweep.search.augments import ViewSets, view_sets
from kdsweep.search.section import Objective, ObjectiveSection, SchedulerSection, SearchSection
from kdsweep.search.space import SearchSpace
from kdsweep.search.stopping.asha import ASHA
from kdsweep.search.students import of_label
from kdsweep.section import Count, Rate, Section, Weight
from kdsweep.sources import user_objects
from kdsweep.storage.files import replacing
from kdsweep.storage.jsonl import LineLog, read_lines
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place
from kdsweep.storage.section import PlaceText
from kdsweep.tasks import Goal
from kdsweep.tasks.image.transforms.written import text_of, with_values
from kdsweep.tasks.metrics import COSTS
from kdsweep.tracking.section import TrackingSection
from kdsweep.training.section import OptimizationSpec, TrainSpec

TEACHER_NAME = r"^[A-Za-z][A-Za-z0-9_]{0,39}$"
WIDEST = 100.0  # as for students
SELECTION = 2  # trainings per candidate by which confirmation selects the best one, with `confirm.seeds: auto`
# The first line of every sweep file that kdsweep writes, as a comment. Version 0.1.0 wrote it too.
RESOLVED = "the sweep file as kdsweep resolved it"


class TeacherSpec(Section):
    """The teacher: a checkpoint, or a model to train.

    Attributes:
        model: A model of `kdsweep models`.
        width: Channel multiplier.
        options: Further arguments of the model.
        student: An exported student, or a sweep's directory followed by a trial or by `best`; it determines the model,
            its width and options, and the checkpoint.
        checkpoint: A .safetensors file or a PyTorch state dict, by path or URI; `kdsweep:NAME` is one shipped with
            kdsweep.
        train: How to train it if there is no checkpoint.
        cache_gb: Disk budget for its outputs, in 1e9 bytes; outputs that do not fit are computed during training.
        keep_logits: How many of a sample's logits students see, the largest; `all` of them, or so many and what the
            others weigh together.
    """

    model: str
    width: Annotated[float, Field(gt=0, le=WIDEST, allow_inf_nan=False)] = 1.0
    options: dict[str, Any] = Field(default_factory=dict)
    student: PlaceText | None = None
    checkpoint: PlaceText | None = None
    train: OptimizationSpec = OptimizationSpec()
    cache_gb: Weight = 8.0
    keep_logits: Literal["all"] | Annotated[int, Field(ge=1)] = "all"

    @model_validator(mode="before")
    @classmethod
    def _model_of_student(cls, written: Any) -> Any:
        """Leave the model open until the student is looked up."""
        if isinstance(written, dict) and written.get("student") is not None:
            return {"model": "", **written}
        return written


class StudentSpec(Section):
    """The student; its width is searched. `space.student` searches over several."""

    model: str
    options: dict[str, Any] = Field(default_factory=dict)


class ConstraintsSection(Section):
    """Limits that a student must satisfy to be trained at all.

    Attributes:
        parameters: Maximum parameter count; 0 means unlimited.
        size_mb: Maximum size of parameters and buffers in MiB; 0 means unlimited.
        flops: Maximum number of floating-point operations for one sample; 0 means unlimited.
        latency_ms: Maximum time for one sample in milliseconds, measured on a worker; 0 means unlimited.
    """

    parameters: Annotated[int, Field(ge=0)] = 0
    size_mb: Weight = 0.0
    flops: Annotated[int, Field(ge=0)] = 0
    latency_ms: Weight = 0.0


class ConfirmSection(Section):
    """Confirmation of the best trials on fresh seeds.

    Attributes:
        top: Number of trials to confirm, chosen from all groups in turn; 0 skips the confirmation.
        seeds: Number of fresh seeds per trial. `auto` spends trainings where they decide.
        trainings: Most trainings with `seeds: auto`, including plain students. `auto` suffices to select the best trial
            of each group and to judge its gains.
        margin: Largest difference that does not matter, in the unit of the metric; 0 rules out the verdict `same`.
            `auto` is the margin that the metric declares.
    """

    top: Annotated[int, Field(ge=0, le=1000)] = 3
    seeds: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = 3
    trainings: Literal["auto"] | Annotated[int, Field(ge=1, le=100_000)] = "auto"
    margin: Literal["auto"] | Weight = "auto"

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield contradictions between the keys, as (key, message)."""
        if self.trainings == "auto":
            return
        if self.seeds != "auto":
            found = f"found {self.trainings}, which has no effect with seeds: {self.seeds}"
            yield "trainings", f"{found}; accepted: seeds: auto with it, or leave it out"
        elif self.trainings < SELECTION * self.top:
            accepted = f"at least {SELECTION * self.top}, two for each of the top {self.top}"
            yield "trainings", f"found {self.trainings}; accepted: {accepted}"


class ResourcesSection(Section):
    """Resources of each trial.

    Attributes:
        cpus_per_trial: CPU cores, and PyTorch threads.
        gpus_per_trial: Share of a GPU, at most 1. `auto` packs trials by measured memory and cores; 0 without GPUs.
        max_concurrent: Maximum number of trials at a time; `auto` fills the cluster.
        max_failures: How often a trial may lose its worker and continue on another one.
        step_timeout_seconds: An epoch that takes longer counts as hung: its worker is killed, and the trial continues
            in another one.
    """

    cpus_per_trial: Annotated[int, Field(ge=1, le=10_000)] = 1
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
    teachers: dict[Annotated[str, Field(pattern=TEACHER_NAME)], TeacherSpec] = Field(default_factory=dict)
    student: StudentSpec | None
    space: dict[str, Any]
    train: TrainSpec = TrainSpec()
    search: SearchSection = SearchSection()
    scheduler: SchedulerSection = SchedulerSection()
    objective: Objective = ObjectiveSection()
    metrics: list[str] = Field(default_factory=list)
    constraints: ConstraintsSection = ConstraintsSection()
    confirm: ConfirmSection = ConfirmSection()
    resources: ResourcesSection = ResourcesSection()
    tracking: TrackingSection = TrackingSection()
    storage: PlaceText = "runs"

    @model_validator(mode="before")
    @classmethod
    def _searched_instead(cls, written: Any) -> Any:
        """Leave out the student if the space has students. The first of several teachers stands for the only one."""
        if not isinstance(written, dict):
            return written
        space, teachers = written.get("space"), written.get("teachers")
        absent: dict[str, Any] = {"student": None} if isinstance(space, dict) and "student" in space else {}
        if isinstance(teachers, dict) and teachers:
            absent["teacher"] = next(iter(teachers.values()))
        return {**absent, **written}

    @model_validator(mode="before")
    @classmethod
    def _rule_of_several(cls, written: Any) -> Any:
        """Use a stopping rule that handles several objectives, if the sweep has several and names no rule."""
        if not isinstance(written, dict) or not isinstance(written.get("objective"), list):
            return written
        scheduler = written.get("scheduler", {})
        if len(written["objective"]) < 2 or not isinstance(scheduler, dict) or "name" in scheduler:
            return written
        return {**written, "scheduler": {**scheduler, "name": ASHA.name}}

    @cached_property
    def search_space(self) -> SearchSpace:
        """The parsed `space`, with fixed values for the training settings that it does not search."""
        written = {"alpha": 1.0, **self.space} if self.label_free else self.space
        space = SearchSpace.parse(written).with_default("lr", self.train.lr).beside(self.train)
        return space.with_teachers(tuple(self.teachers))

    @property
    def label_free(self) -> bool:
        """Whether no sample has a label: students learn from the teacher alone and are compared with it."""
        try:
            return tasks.of(self.dataset).label_free
        except InputError:
            return False  # reported as a fault of the data set

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """The names of the teachers; the name of the only one of `teacher` is empty."""
        return tuple(self.teachers) or ("",)

    @property
    def teacher_keys(self) -> dict[str, document.Keys]:
        """Where each teacher is in the sweep file, by its name."""
        return {name: ("teachers", name) if name else ("teacher",) for name in self.teacher_names}

    def of_teacher(self, name: str) -> SweepSpec:
        """Return the spec as if it had only this one of its teachers."""
        return self.replaced(teacher=self.teachers[name]) if name else self

    def student_of(self, config: Mapping[str, Any]) -> StudentSpec:
        """Return the student of a configuration, also of one that the space has lost since."""
        if self.student is not None:
            return self.student
        student = of_label(str(config["student"]))
        return StudentSpec(model=student.model, options=dict(student.options))

    @property
    def students(self) -> dict[str, StudentSpec]:
        """Every student by its label in configurations; the label of the only one is empty."""
        return {label: self.student_of({"student": label}) for label in self.search_space.students or ("",)}

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets of trials in epochs, increasing."""
        searched = self.search_space.shared.get("epochs")
        return tuple(sorted(map(int, searched.every()))) if searched is not None else (self.train.epochs,)

    @cached_property
    def augment(self) -> str:
        """The text of `dataset.augment`, which holds unless the space draws another list of transforms.

        Raises:
            InputError: If it is not valid.
        """
        return text_of(self.dataset.augment)

    def augment_of(self, config: Config) -> str:
        """The text of the transforms of one configuration."""
        return with_values(str(config["augment"]), config) if "augment" in config else self.augment

    @property
    def view_sets(self) -> ViewSets:
        """The sets of views that trials can ask for."""
        return view_sets(self.search_space.shared.get("augment"), self.augment)

    def views_in(self, augment: str) -> int:
        """The number of views in a set."""
        return 1 if augment == "none" else min(self.dataset.views or self.budgets[-1], self.budgets[-1])

    @property
    def objectives(self) -> list[ObjectiveSection]:
        """The objectives as written, also if there is only one."""
        return self.objective if isinstance(self.objective, list) else [self.objective]

    @cached_property
    def goals(self) -> tuple[Goal, ...]:
        """The objectives with their directions.

        Raises:
            InputError: If a `mode` is `auto` and the task has no such metric.
        """
        return tuple(self._goal(one) for one in self.objectives)

    @property
    def goal(self) -> Goal:
        """The first objective. It picks each trial's best epoch, and confirmed gains are differences in it.

        Raises:
            InputError: If `mode` is `auto` and the task has no such metric.
        """
        return self.goals[0]

    def _goal(self, one: ObjectiveSection) -> Goal:
        if one.mode != "auto":
            return Goal(one.metric, one.mode)
        return Goal(one.metric, "min" if one.metric in COSTS else tasks.of(self.dataset).metric(one.metric).mode)

    @property
    def wanted_metrics(self) -> tuple[str, ...]:
        """The metrics that the sweep file names, as written: the objectives without costs, and the further ones."""
        return (*(one.metric for one in self.objectives if one.metric not in COSTS), *self.metrics)

    def gain_margin(self) -> float:
        """Return the largest difference that does not matter; 0 if neither sweep file nor metric has one.

        Raises:
            InputError: If `margin` is `auto` and the task has no such metric.
        """
        if self.confirm.margin != "auto":
            return self.confirm.margin
        return tasks.of(self.dataset).metric(self.objectives[0].metric).margin

    @property
    def given_objects(self) -> dict[str, str]:
        """Names of the Python objects that the sweep was made from, by role; empty for sweeps from files and dicts."""
        teachers = {f"teachers.{name}": teacher.model for name, teacher in self.teachers.items()}
        models = (teachers or {"teacher": self.teacher.model}) | (
            {"student": self.student.model} if self.student else {}
        )
        methods = {f"methods.{name.partition(':')[2]}": name for name in sorted(user_objects(self.space))}
        return {role: name for role, name in (models | methods).items() if is_given(name)}

    @property
    def sweep_dir(self) -> SweepDir:
        """The sweep's directory."""
        place = Place.of(self.storage)
        return SweepDir.at(place / self.name) if place.is_remote else SweepDir(Path(self.storage) / self.name)

    def comparable(self) -> dict[str, Any]:
        """Return the resolved values; equal values mean the same sweep."""
        return self.model_dump() | {"space": self.search_space.written()}

    def replaced(self, **sections: Any) -> SweepSpec:
        """Return a copy of the spec with some top-level keys replaced."""
        copy = self.model_copy(update=sections)
        for cached in ("search_space", "goals", "augment"):  # model_copy copies cached properties too
            copy.__dict__.pop(cached, None)
        return copy

    def save(self, path: Path) -> None:
        """Write the resolved sweep file; reading it back gives an equal spec.

        The values are first appended to the sweep's `specs.jsonl`, so that `read_spec` can detect edits. If the process
        is killed in between, the old file remains valid.
        """
        values, log = self.comparable(), SweepDir(path.parent).specs
        if path.is_file() and not log.is_file():  # version 0.1.0 did not log its spec
            with closing(LineLog(log)) as lines:
                lines.append(document.Document(path).values)
        if not any(not differences(saved, values) for saved in list(read_lines(log))[-1:]):
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(LineLog(log)) as lines:
                lines.append(values)
        with replacing(path) as partial:
            document.dump(values, partial, f"{RESOLVED}; to change it: kdsweep resume --set")


def read_spec(sweep: SweepDir) -> SweepSpec:
    """Read the spec of an existing sweep, which was checked when it was written.

    Raises:
        SpecError: If the file was edited, or if kdsweep did not write it.
    """
    values = document.Document(sweep.spec).values
    _refuse_edits(sweep, values)
    try:
        return SweepSpec.model_validate(values)
    except ValueError as error:
        raise SpecError([f"{sweep.spec}:1: not a resolved sweep file: {str(error).splitlines()[0]}"]) from error


def was_resolved(path: Path) -> bool:
    """Whether a file is a sweep file that kdsweep wrote, not the user's own."""
    try:
        return path.read_text(encoding="utf-8").startswith(f"# {RESOLVED}")
    except (OSError, UnicodeDecodeError):
        return False


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the settings that differ between two resolved specs, as `path: there -> here`."""
    found: list[str] = []
    for key in sorted({*there, *here}):
        before, after = there.get(key), here.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found


def _refuse_edits(sweep: SweepDir, values: Mapping[str, Any]) -> None:
    """Raise an error if the values are none that the sweep has had; version 0.1.0 did not log them."""
    moved = {"name": None, "storage": None}  # `resume` takes both from the directory
    edits = [differences({**saved, **moved}, {**values, **moved}) for saved in read_lines(sweep.specs)]
    if edits and all(edits):
        shown = "; ".join(edits[-1][:5]) + (f" and {len(edits[-1]) - 5} more" if len(edits[-1]) > 5 else "")
        raise SpecError(
            [
                f"{sweep.spec}:1: edited since the sweep began ({shown}); undo the edit, then change settings with: "
                "kdsweep resume --set"
            ]
        )
