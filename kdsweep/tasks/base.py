"""The task interface: samples, batches, the loss on the labels, and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from kdsweep import models
from kdsweep.datasets import Dataset, DatasetInfo
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import InputError, UnknownNameError, did_you_mean
from kdsweep.lazy import F, nn, torch
from kdsweep.methods import Outputs
from kdsweep.models import InputSpec, Tapped, Taps
from kdsweep.registry import Registry, is_user_object, load_user_object
from kdsweep.storage.paths import Store
from kdsweep.tasks.metrics import DEFAULT_OBJECTIVE, METRICS, Goal, Metric
from kdsweep.words import kind_of

SplitName = Literal["train", "val", "test"]
Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


class Mixed(NamedTuple):
    """The labels of samples that are each mixed from two.

    Attributes:
        first: Class indices [B].
        second: Class indices of the other samples [B].
        share: Share of the first label, float32 [B].
    """

    first: torch.Tensor
    second: torch.Tensor
    share: torch.Tensor

    def probabilities(self, classes: int) -> torch.Tensor:
        """Return the class probabilities, float32 [B, C]."""
        first, second = (F.one_hot(labels, classes).float() for labels in (self.first, self.second))
        return torch.lerp(second, first, self.share[:, None])

    def dominant(self) -> torch.Tensor:
        """Return the class indices with the larger share [B]; the first ones if both are equal."""
        return torch.where(self.share >= 0.5, self.first, self.second)


class View(Protocol):
    """The augmentation of every training sample in one epoch; it depends only on (seed, number)."""

    def apply(self, samples: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Augment samples [B, ...], which are at positions `index` [B] of the training split."""


class Samples(Protocol):
    """A split on a device."""

    labels: torch.Tensor
    device: torch.device

    def __len__(self) -> int: ...

    def view(self, augment: str, seed: int, number: int) -> View:
        """One view of all samples, counted from 1; the same in every trial of a sweep."""

    def targets(self, index: torch.Tensor, view: View) -> torch.Tensor | Mixed:
        """The labels of the samples at `index` [B] in a view: class indices [B], or `Mixed` if it mixes samples."""

    def batch(self, index: torch.Tensor, view: View | None = None) -> torch.Tensor:
        """Model input for the samples at `index` [B]."""

    def sequence(self, indices: Sequence[torch.Tensor], view: View | None = None) -> Iterator[torch.Tensor]:
        """Yield one batch for each index tensor [B] on the CPU, as `batch` returns it.

        No batch may wait for the device: move all indices at once (`on_device`).
        """

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all samples with their labels, in order, without augmentation."""

    def first(self, count: int) -> Samples:
        """The first `count` samples, as a split."""


class Prepared(Protocol):
    """The splits of one sweep, stored in files that every process memory-maps."""

    @property
    def root(self) -> Path:
        """Directory of the files."""

    @property
    def digest(self) -> str:
        """Hash of the samples, the split and its seed."""

    @property
    def task(self) -> Task:
        """The task that prepared them."""

    @property
    def input_spec(self) -> InputSpec:
        """Shape and dtype of one sample as model input."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in label order."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def unlabelled(self) -> int:
        """Number of training samples without labels; they come last in the split, and their labels are -1."""

    def count(self, name: SplitName) -> int:
        """Number of samples in a split, without reading them."""

    def split(self, name: SplitName, device: torch.device) -> Samples:
        """Load one split for a device."""

    @property
    def contents(self) -> Mapping[str, str]:
        """Digest of each split of the data set, as read by `prepare`; empty for a published data set."""

    @property
    def skipped(self) -> Mapping[str, int]:
        """Number of unreadable files that were left out, by split; splits without any are omitted."""

    def described(self) -> dict[str, Any]:
        """Everything except `root`, `contents` and `skipped` as JSON data.

        It includes `digest`, `input_shape` and `class_names`.
        """


def counted(skipped: Mapping[str, int]) -> str:
    """Format counts per split: `3 in train, 1 in test`."""
    return ", ".join(f"{count} in {split}" for split, count in skipped.items())


class Task:
    """A classification task: models return logits [B, C], labels are class indices.

    A subclass defines the samples: how they are prepared, batched and augmented. The metrics and the loss on the
    labels default to those of classification.

    Attributes:
        name: The name that data sets use to declare the task; `package.module:Class` for a user's own task.
        noun: Plural noun for samples in messages.
        pipeline_tag: The task's name on the Hugging Face Hub; empty if it has none.
        read_by: What else a checkpoint was trained with, and its key in the sweep file; for messages.
        files: Names of files in `Prepared.root` that exported students need, such as a tokenizer.
        has_transforms: Whether samples are images that the transforms of `space.augment` change.
        label_free: Whether samples have no labels. Metrics then compare the logits [B, C] with those of the teacher.
        default_metric: The objective if the sweep file names none.
        metrics: Metrics by name; each can be the objective.
        always: Names of the metrics that every evaluation computes, if there are enough classes for them.
    """

    name: str = ""
    noun: ClassVar[str] = "samples"
    pipeline_tag: ClassVar[str] = ""
    read_by: ClassVar[str] = "normalisation (dataset.normalize)"
    files: ClassVar[tuple[str, ...]] = ()
    has_transforms: ClassVar[bool] = False
    label_free: ClassVar[bool] = False
    default_metric: ClassVar[str] = DEFAULT_OBJECTIVE
    metrics: ClassVar[Mapping[str, Metric] | Registry[Metric]] = METRICS
    always: ClassVar[tuple[str, ...]] = ("accuracy", "loss", "top5_accuracy", "balanced_accuracy", "ece")

    def input_spec(self, input_shape: tuple[int, ...]) -> InputSpec:
        """Shape and dtype of model input for samples of this shape."""
        return InputSpec(input_shape)

    def input_of(self, spec: DatasetSpec, info: DatasetInfo) -> InputSpec:
        """Model input for a data set, if more than the shape of its samples decides it.

        Raises:
            InputError: If a file that the `dataset` section names cannot be read.
        """
        return self.input_spec(info.input_shape)

    def described_input(self, described: Mapping[str, Any]) -> InputSpec:
        """Model input for samples that `Prepared.described()` describes."""
        return self.input_spec(tuple(described["input_shape"]))

    def faults(
        self, spec: DatasetSpec, dataset: Dataset, info: DatasetInfo
    ) -> Iterator[tuple[str | tuple[str | int, ...], str]]:
        """Yield (key or path, message) for each setting in the `dataset` section that this task does not support."""
        yield from ()

    def prepare(self, spec: DatasetSpec, seed: int, store: Store) -> Prepared:
        """Split a data set and store the splits in files; sweeps with the same data settings share them.

        Raises:
            DataError: If the data set cannot be read or is too small to split.
        """
        raise NotImplementedError

    def prepare_test(self, spec: DatasetSpec, data: Prepared) -> bool:
        """Store the test split next to the others; return False if the data set has none."""
        raise NotImplementedError

    def load(self, root: Path) -> Prepared:
        """Open the files that `prepare` wrote."""
        raise NotImplementedError

    def exported_split(self, spec: DatasetSpec, seed: int, split: str) -> Samples:
        """Load a split on the CPU, as input for models returned by `exported`.

        Raises:
            DataError: If the split cannot be read.
        """
        raise NotImplementedError

    def spec_beside(self, spec: DatasetSpec, folder: Path) -> DatasetSpec:
        """The `dataset` section that reads samples with the `files` in a folder, for `exported_split`."""
        return spec

    def exported(self, model: nn.Module, described: Mapping[str, Any]) -> nn.Module:
        """The model in the form that users call after export.

        Args:
            model: A trained student.
            described: Its `config.json`, which includes `Prepared.described()` of its training data.
        """
        return model

    def opened(self, student: nn.Module, folder: Path) -> nn.Module:
        """Complete what `exported` returned with the `files` in the student's folder."""
        return student

    def exported_call(self, input_shape: tuple[int, ...]) -> str:
        """One line of Python for the model card that shows how to call an exported model."""
        return f"logits = student(samples)  # samples [B, {', '.join(map(str, input_shape))}]"

    def exported_note(self, described: Mapping[str, Any]) -> str:
        """A further sentence about the input for the model card, or an empty string."""
        return ""

    def pictures(self, samples: Samples, index: torch.Tensor) -> torch.Tensor:
        """Samples at `index` [B] as a person sees them: uint8 [B, C, H, W] on the CPU; C is 0 if they are no images."""
        return torch.empty(len(index), 0, 1, 1, dtype=torch.uint8)

    def texts(self, data: Prepared, samples: Samples, index: torch.Tensor) -> list[str]:
        """Samples at `index` [B] as a person reads them; empty if they are no texts."""
        return []

    def tapped(self, model: nn.Module, taps: Taps, input_spec: InputSpec) -> Tapped:
        """Wrap a model so that a call returns the `Outputs` that methods use."""
        return models.Tapped(model, taps)

    def losses(self, outputs: Outputs, labels: torch.Tensor, loss: Loss) -> dict[str, torch.Tensor]:
        """Losses on the labels, as named scalars.

        Args:
            outputs: The student's outputs, with gradients.
            labels: [B].
            loss: The sweep's `train.task_loss`: (float32 logits [B, C], labels [B]) -> scalar.

        Returns:
            `task_loss`, which is minimised, and optionally other scalars, which are only recorded.
        """
        return {"task_loss": loss(outputs.logits.float(), labels)}

    def metric(self, written: str) -> Metric:
        """The metric for an objective: `val_NAME`, or the user's own `package.module:NAME`.

        Raises:
            UnknownNameError: If there is no such metric; the message suggests the closest name.
            InputError: If the user's object is not a metric.
        """
        if is_user_object(written):
            found = load_user_object(written, "metric")
            if not isinstance(found, Metric):
                raise InputError(f"metric {written!r}: {kind_of(found)}; accepted: a kdsweep.tasks.Metric")
            return found
        known = {f"val_{name}": self.metrics[name] for name in self.metrics}
        if written not in known:
            own = ", or your own package.module:name"
            raise UnknownNameError(f"unknown metric {written!r}; {did_you_mean(written, known)}{own}")
        return known[written]

    def measured(self, wanted: Sequence[str], num_classes: int) -> dict[str, Metric]:
        """The metrics that a sweep computes after each epoch, by name.

        Args:
            wanted: Metrics that the sweep file names, as `metric` takes them.
            num_classes: Metrics that need more classes are left out, unless they are wanted.
        """
        usual = {name: self.metrics[name] for name in self.always if name in self.metrics}
        return {name: metric for name, metric in usual.items() if metric.least_classes <= num_classes} | {
            Goal(written).name: self.metric(written) for written in wanted
        }

    def teacher_fault(self, measured: Mapping[str, float], num_classes: int) -> str:
        """Why a teacher with these validation metrics is too weak to distil from; empty if it is good enough.

        It must reach twice chance accuracy, or 60 % for two or three classes.
        """
        least = min(2 / num_classes, 0.6)
        if measured["val_accuracy"] >= least:
            return ""
        return (
            f"reaches {measured['val_accuracy']:.1%} on the validation split; accepted: at least {least:.1%}, twice "
            f"chance among {num_classes} classes. Is the checkpoint of these classes, in this order, and of this "
            f"{self.read_by}?"
        )


TASKS: Registry[Task] = Registry("task", "kdsweep.tasks", packages=True)


def register(task: type[Task]) -> type[Task]:
    """Register a task class under its `name`."""
    TASKS.add(task.name, task())
    return task
