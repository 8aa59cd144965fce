"""The base for user-defined tasks: samples are in-memory arrays, passed to models unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kdsweep import datasets
from kdsweep.datasets import Dataset, DatasetInfo, Split
from kdsweep.datasets.base import sample_digests
from kdsweep.datasets.section import DatasetSpec, TextSection
from kdsweep.errors import DataError
from kdsweep.lazy import torch
from kdsweep.models import InputSpec
from kdsweep.seeds import digest_of
from kdsweep.storage.arrays import has_array, map_array, save_array
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import Store
from kdsweep.tasks.base import Mixed, Samples, SplitName, Task, View
from kdsweep.tasks.order import on_device
from kdsweep.tasks.split import contents, is_stored, note_stored, train_and_val


class Unvaried:
    """The view of a task without augmentation: returns samples unchanged."""

    def apply(self, samples: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return samples


class Arrays:
    """A split on a device.

    Args:
        samples: [N, ...].
        labels: int64 [N].
    """

    def __init__(self, samples: torch.Tensor, labels: torch.Tensor):
        self.samples = samples
        self.labels = labels
        self.device = labels.device

    def __len__(self) -> int:
        return len(self.labels)

    def view(self, augment: str, seed: int, number: int) -> View:
        """There is only one view, without augmentation."""
        return Unvaried()

    def targets(self, index: torch.Tensor, view: View) -> torch.Tensor | Mixed:
        """The labels at `index` [B]."""
        return self.labels[index]

    def batch(self, index: torch.Tensor, view: View | None = None) -> torch.Tensor:
        """Samples at `index` [B], augmented if a view is given."""
        samples = self.samples[index]
        return samples if view is None else view.apply(samples, index)

    def sequence(self, indices: Sequence[torch.Tensor], view: View | None = None) -> Iterator[torch.Tensor]:
        return (self.batch(index, view) for index in on_device(indices, self.device))

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all samples with their labels, in order."""
        return zip(self.samples.split(size), self.labels.split(size), strict=True)

    def first(self, count: int) -> Samples:
        return type(self)(self.samples[:count], self.labels[:count])


@dataclass(frozen=True)
class PreparedArrays:
    """The splits of one sweep, stored in files. See `Prepared`."""

    root: Path
    task: ArrayTask
    digest: str
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    contents: Mapping[str, str] = field(default_factory=dict, compare=False)
    skipped: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def input_spec(self) -> InputSpec:
        return self.task.input_spec(self.input_shape)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def unlabelled(self) -> int:
        return 0

    def count(self, name: SplitName) -> int:
        return len(map_array(self.root / f"{name}_labels.bin"))

    def split(self, name: SplitName, device: torch.device) -> Samples:
        samples, labels = (map_array(self.root / f"{name}_{kind}.bin") for kind in ("samples", "labels"))
        return self.task.samples(samples.to(device), labels.to(device))

    def described(self) -> dict[str, Any]:
        """Everything except `root`, `contents` and `skipped`, as JSON data."""
        return {
            "task": self.task.name,
            "digest": self.digest,
            "input_shape": self.input_shape,
            "class_names": self.class_names,
        }


class ArrayTask(Task):
    """A task whose samples are arrays of one shape and dtype.

    A subclass sets the dtype. It may override `samples` to return its own class for a split, for example to augment
    samples with views.

    Attributes:
        dtype: Dtype of the samples, under its NumPy and PyTorch name: `int64`, `float32`, ...
    """

    dtype: ClassVar[str] = "float32"

    def samples(self, samples: torch.Tensor, labels: torch.Tensor) -> Samples:
        """Make a split from samples [N, ...] and labels [N] on the same device."""
        return Arrays(samples, labels)

    def input_spec(self, input_shape: tuple[int, ...]) -> InputSpec:
        return InputSpec(input_shape, self.dtype)

    def faults(self, spec: DatasetSpec, dataset: Dataset, info: DatasetInfo) -> Iterator[tuple[str, str]]:
        """Reject the settings for images, and those for texts."""
        yield from self.image_faults(spec)
        if spec.text != TextSection():
            yield "text", f"accepted: leave it out, the samples are {self.noun}"

    def image_faults(self, spec: DatasetSpec) -> Iterator[tuple[str, str]]:
        """Reject the settings for images: augmentation, resizing, streaming and normalisation."""
        plain = {
            "augment": "none",
            "views": 0,
            "resize": 0,
            "stream": False,
            "skip_unreadable": False,
            "normalize": "dataset",
            "mean": [],
            "std": [],
            "classes": [],
        }
        for key, value in plain.items():
            if getattr(spec, key) != value:
                yield key, f"found {getattr(spec, key)!r}; accepted: {value!r}: {self.noun} are used unchanged"

    def prepare(self, spec: DatasetSpec, seed: int, store: Store) -> PreparedArrays:
        """Split a data set and store the splits in files. See `Task.prepare`."""
        info = self._info(spec)
        read = {name: self._read(spec, name) for name in info.splits}
        found = contents(read, lambda name: sample_digests(*read[name]), spec.name, self.noun)
        asked = spec.model_dump(include={"name", "val_fraction", "subset"})
        binding = {name: digest for name, digest in found.items() if name != "test"}
        digest = digest_of({**asked, "seed": seed, "task": self.name, "content": binding, "layout": 2})[:16]
        root = store.data(digest)
        if not (root / "data.json").is_file():
            splits = train_and_val(spec, seed, info.splits, lambda name: read[name], self.noun)
            for name, split in zip(("train", "val"), splits, strict=True):
                write_split(root, name, split)
            write_json(root / "data.json", PreparedArrays(root, self, digest, *_shape_and_classes(info)).described())
        return replace(self.load(root), contents=found)

    def prepare_test(self, spec: DatasetSpec, data: Any) -> bool:
        if "test" not in self._info(spec).splits:
            return False
        if not has_array(data.root / "test_labels.bin") or not is_stored(data.root, data.contents):
            write_split(data.root, "test", self._read(spec, "test"))
            note_stored(data.root, data.contents)
        return True

    def load(self, root: Path) -> PreparedArrays:
        described = json.loads((root / "data.json").read_text())
        shape, names = tuple(described["input_shape"]), tuple(described["class_names"])
        return PreparedArrays(root, self, described["digest"], shape, names)

    def exported_split(self, spec: DatasetSpec, seed: int, split: str) -> Samples:
        if split == "test":
            found = self._read(spec, "test")
        else:
            both = train_and_val(spec, seed, self._info(spec).splits, lambda name: self._read(spec, name), self.noun)
            found = both[0 if split == "train" else 1]
        return self.samples(torch.from_numpy(found.images), torch.from_numpy(found.labels))

    def _info(self, spec: DatasetSpec) -> DatasetInfo:
        return datasets.get(spec.name).describe(spec.source())

    def _read(self, spec: DatasetSpec, name: str) -> Split:
        """Read a split and check it against the data set's description.

        Raises:
            DataError: If there is no such split, or it does not match the description.
        """
        info, where = self._info(spec), f"data set {spec.name!r}, split {name!r}"
        if name not in info.splits:
            raise DataError(f"data set {spec.name!r} has no split {name!r}; accepted: {', '.join(info.splits)}")
        split = datasets.get(spec.name).read(spec.source(), name)
        samples, labels = np.asarray(split[0]), np.asarray(split[1])
        if samples.dtype != self.dtype or samples.shape[1:] != info.input_shape:
            found = f"{samples.dtype} of shape {samples.shape}"
            shape = " x ".join(map(str, ("N", *info.input_shape)))
            raise DataError(f"{where}: {self.noun} are {found}; accepted: {self.dtype} of shape {shape}")
        classes = len(info.class_names)
        if labels.dtype.kind not in "iu" or labels.shape != samples.shape[:1] or not len(labels):
            found = f"{labels.dtype} of shape {labels.shape}"
            raise DataError(f"{where}: labels are {found}; accepted: integers, one for each of the {self.noun}")
        if labels.min() < 0 or labels.max() >= classes:
            raise DataError(f"{where}: labels from {labels.min()} to {labels.max()}; accepted: 0 to {classes - 1}")
        return Split(np.require(samples, requirements="C"), np.require(labels, np.int64, requirements="C"))


def _shape_and_classes(info: DatasetInfo) -> tuple[tuple[int, ...], tuple[str, ...]]:
    return info.input_shape, info.class_names


def write_split(root: Path, name: str, split: Split) -> None:
    """Store a split for `map_array`."""
    save_array(split.images, root / f"{name}_samples.bin")
    save_array(split.labels, root / f"{name}_labels.bin")
