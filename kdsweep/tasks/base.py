"""The contract of a task: what a sample is, how batches are made, what is learnt and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from kdsweep import models
from kdsweep.datasets import Dataset, DatasetInfo
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import InputError, UnknownNameError, did_you_mean
from kdsweep.lazy import nn, torch
from kdsweep.methods import Outputs
from kdsweep.models import InputSpec, Tapped, Taps
from kdsweep.registry import Registry, is_user_object, load_user_object
from kdsweep.storage.paths import Store
from kdsweep.tasks.metrics import METRICS, Goal, Metric

SplitName = Literal["train", "val", "test"]
Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


class View(Protocol):
    """How every training sample looks in one epoch, drawn from (seed, epoch) alone."""

    def apply(self, samples: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Vary the samples [B, ...] that stand at `index` [B] of the training split."""


class Samples(Protocol):
    """A split on a device."""

    labels: torch.Tensor
    device: torch.device

    def __len__(self) -> int: ...

    def view(self, augment: str, seed: int, epoch: int) -> View:
        """How the samples look in one epoch, counted from 1; the same for every trial of a sweep."""

    def batch(self, index: torch.Tensor, view: View | None = None) -> torch.Tensor:
        """What a model takes, for the samples at `index` [B]."""

    def sequence(self, indices: Sequence[torch.Tensor], view: View | None = None) -> Iterator[torch.Tensor]:
        """One batch after the other, as `batch` returns them."""

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All samples with their labels, in order, unvaried."""

    def first(self, count: int) -> Samples:
        """The first samples, as a split of their own."""


class Prepared(Protocol):
    """The splits of one sweep, in files that every process maps."""

    @property
    def root(self) -> Path:
        """The directory of the files."""

    @property
    def digest(self) -> str:
        """Names the samples, the split and its seed."""

    @property
    def task(self) -> Task:
        """Whose they are."""

    @property
    def input_spec(self) -> InputSpec:
        """What a model takes for one sample."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""

    @property
    def num_classes(self) -> int:
        """How many classes."""

    def count(self, name: SplitName) -> int:
        """How many samples a split has, without reading them."""

    def split(self, name: SplitName, device: torch.device) -> Samples:
        """One split on a device."""

    def described(self) -> dict[str, Any]:
        """Everything but where it lies, as JSON; with `digest`, `input_shape` and `class_names`."""


class Task:
    """Classification of samples of some kind: a model returns logits [B, C], a label is a class.

    A subclass says what samples are: how they are prepared, batched and varied. The metrics and the loss on the labels
    are those of classification unless it says otherwise.

    Attributes:
        name: As a data set declares it; of the user's own, `package.module:Class`.
        noun: What samples are called in messages, in the plural.
        metrics: By name; any of them can be the objective.
        always: Those that every evaluation measures.
    """

    name: str = ""
    noun: ClassVar[str] = "samples"
    metrics: ClassVar[Mapping[str, Metric] | Registry[Metric]] = METRICS
    always: ClassVar[tuple[str, ...]] = ("accuracy", "loss")

    def input_spec(self, input_shape: tuple[int, ...]) -> InputSpec:
        """What a model takes for samples of this shape."""
        return InputSpec(input_shape)

    def faults(self, spec: DatasetSpec, dataset: Dataset, info: DatasetInfo) -> Iterator[tuple[str, str]]:
        """What the section `dataset` asks for that this task cannot do, as (key, message)."""
        yield from ()

    def prepare(self, spec: DatasetSpec, seed: int, store: Store) -> Prepared:
        """Split a data set and keep it in files, once for all sweeps of a storage that ask for the same.

        Raises:
            DataError: If the data set cannot be read or is too small to split.
        """
        raise NotImplementedError

    def prepare_test(self, spec: DatasetSpec, data: Prepared) -> bool:
        """Have the test split beside the others, if the data set has one; says whether it does."""
        raise NotImplementedError

    def load(self, root: Path) -> Prepared:
        """Open what `prepare` wrote."""
        raise NotImplementedError

    def exported_split(self, spec: DatasetSpec, seed: int, split: str) -> Samples:
        """A split as `exported` models take it, on the CPU.

        Raises:
            DataError: If it cannot be read.
        """
        raise NotImplementedError

    def exported(self, model: nn.Module, described: Mapping[str, Any]) -> nn.Module:
        """The model as users call it after export.

        Args:
            model: A trained student.
            described: Its `config.json`, with `input_shape`, `class_names` and what else `Prepared.described()` says.
        """
        return model

    def exported_call(self, input_shape: tuple[int, ...]) -> str:
        """How an exported model is called, as a line of Python for its card."""
        return f"logits = student(samples)  # samples [B, {', '.join(map(str, input_shape))}]"

    def exported_note(self, described: Mapping[str, Any]) -> str:
        """What else its card says of the input: a sentence, or nothing."""
        return ""

    def tapped(self, model: nn.Module, taps: Taps) -> Tapped:
        """A model whose call shows a method its outputs."""
        return models.Tapped(model, taps)

    def losses(self, outputs: Outputs, labels: torch.Tensor, loss: Loss) -> dict[str, torch.Tensor]:
        """What the student learns from the labels, as named scalars.

        Args:
            outputs: The student's, with gradient.
            labels: [B].
            loss: The sweep's `train.task_loss`: (logits [B, C] of float32, labels [B]) -> scalar.

        Returns:
            `task_loss`, which is minimised, and further parts, which are only recorded beside it.
        """
        return {"task_loss": loss(outputs.logits.float(), labels)}

    def metric(self, written: str) -> Metric:
        """The metric that an objective names: `val_NAME`, or the user's own `package.module:NAME`.

        Raises:
            UnknownNameError: With the nearest valid name.
            InputError: If the user's object is not a metric.
        """
        if is_user_object(written):
            found = load_user_object(written, "metric")
            if not isinstance(found, Metric):
                raise InputError(f"metric {written!r}: a {type(found).__name__}; accepted: a kdsweep.tasks.Metric")
            return found
        known = {f"val_{name}": self.metrics[name] for name in self.metrics}
        if written not in known:
            own = ", or your own package.module:name"
            raise UnknownNameError(f"unknown metric {written!r}; {did_you_mean(written, known)}{own}")
        return known[written]

    def measured(self, goal: Goal) -> dict[str, Metric]:
        """What a sweep measures after each epoch, by name."""
        return {name: self.metrics[name] for name in self.always} | {goal.name: self.metric(goal.metric)}

    def teacher_fault(self, measured: Mapping[str, float], num_classes: int) -> str:
        """Why a teacher of these validation metrics is not worth distilling from; empty if it is.

        It must reach twice the accuracy of chance, or 60 % for two or three classes.
        """
        least = min(2 / num_classes, 0.6)
        if measured["val_accuracy"] >= least:
            return ""
        return (
            f"reaches {measured['val_accuracy']:.1%} on the validation split; accepted: at least {least:.1%}, twice "
            f"chance among {num_classes} classes. Is the checkpoint of these classes, in this order, and of this "
            "normalisation (dataset.normalize)?"
        )


TASKS: Registry[Task] = Registry("task", "kdsweep.tasks", packages=True)


def register(task: type[Task]) -> type[Task]:
    """Declare a task under its `name`."""
    TASKS.add(task.name, task())
    return task
