"""The data set interface: a description that needs no image data, and the splits as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.images import resized
from kdsweep.errors import DataError
from kdsweep.registry import Registry
from kdsweep.storage.streamed import Listing
from kdsweep.words import count_of

MAX_CLASSES = 1_000_000


@dataclass(frozen=True)
class Source:
    """Where a data set is stored and how to read it.

    Attributes:
        root: Absolute path of the directory.
        download: Whether missing files may be downloaded.
        resize: Target side in pixels (resize the shorter side, then centre-crop); 0 keeps the original size.
        skip_unreadable: Whether files that cannot be read are left out.
        columns: Names of the columns with texts and with labels, in files of texts.
        classes: Class names in label order, of files of texts and of images without labels; empty sorts those of texts.
        hashes: JSON file that remembers the hashes of the data set's files; None remembers nothing.
        objects: The objects of a URI that is streamed, instead of `root`; None for a directory.
    """

    root: Path
    download: bool = True
    resize: int = 0
    skip_unreadable: bool = False
    columns: tuple[str, str] = ("text", "label")
    classes: tuple[str, ...] = ()
    hashes: Path | None = field(default=None, compare=False)
    objects: Listing | None = field(default=None, compare=False)


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a data set without reading its images.

    Attributes:
        input_shape: (channels, height, width) of one image; () of one text.
        class_names: Class names in label order.
        mean: Per-channel mean of images scaled to 0..1; if empty, it is computed from the training split.
        std: Per-channel standard deviation, likewise.
        splits: The available splits: always `train`, optionally `val` and `test`.
    """

    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    splits: tuple[str, ...] = ("train", "test")


class Split(NamedTuple):
    """One split: uint8 images [N, C, H, W], or file paths or texts [N], and int64 labels [N]."""

    images: NDArray[Any]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """A data set; the rest of kdsweep calls `describe`, `load` and `files`.

    Attributes:
        name: Name in sweep files and error messages.
        summary: One line for `kdsweep datasets`.
        inspect: `inspect(source) -> DatasetInfo` describes the images before resizing; fast, and without torch.
        read: `read(source, split) -> Split`; images that do not have the source's size yet are resized afterwards.
        list_files: `list_files(source, split) -> Split` of paths; None if the images are not separate files.
        read_file: `read_file(path, resize, shape)` reads one of these files as [C, H, W] of that shape.
        content: `content(source, split)` returns a digest of each sample with its label, in order; None for a
            published data set, which its name identifies wherever it is stored.
        check: `check(source, split)` returns one line for each file of a split that cannot be read, whether it is left
            out or not; None if the images are not separate files.
        from_store: Whether it reads `source.objects`, so that it can be streamed from an object store.
        task: Name of the data set's task, or the user's own `package.module:Class`. A task with samples other than
            images calls `read` itself and checks the result.
        labelled: Whether its images have labels; otherwise their labels are -1.
        count: `count(source)` returns the number of training samples, or 0 if it is not known before they are read;
            not needed with `list_files`.
        nameable: Whether a sweep file may name it; otherwise `kdsweep.sweep` makes it.
    """

    name: str
    summary: str
    inspect: Callable[[Source], DatasetInfo]
    read: Callable[[Source, str], Split]
    list_files: Callable[[Source, str], Split] | None = None
    read_file: Callable[[str, int, tuple[int, int, int]], NDArray[np.uint8]] | None = None
    content: Callable[[Source, str], list[str]] | None = None
    check: Callable[[Source, str], list[str]] | None = None
    from_store: bool = False
    task: str = "image"
    labelled: bool = True
    count: Callable[[Source], int] | None = None
    nameable: bool = True

    def describe(self, source: Source) -> DatasetInfo:
        """Describe the data set, with the image size after resizing.

        Raises:
            DataError: If the data set is missing or has the wrong layout.
        """
        info = self.inspect(source)
        if not source.resize or len(info.input_shape) != 3:  # the task refuses it for samples that are no images
            return info
        return replace(info, input_shape=(info.input_shape[0], source.resize, source.resize))

    def load(self, source: Source, split: str) -> Split:
        """Read one split.

        Returns:
            Images [N, C, H, W] of the described shape and labels [N], both writable.

        Raises:
            DataError: If there is no such split, or files are missing or unreadable, or images or labels do not
                match the description.
        """
        info = self._with_split(source, split)
        where = f"data set {self.name!r}, split {split!r}"
        images, labels = checked(self.read(source, split), where, least=0 if self.labelled else -1)
        if labels.max() >= len(info.class_names):
            raise DataError(f"{where}: found label {labels.max()}; accepted: 0 to {len(info.class_names) - 1}")
        if source.resize:
            images = resized(images, source.resize)
        if images.shape[1:] != info.input_shape:
            found, described = shown(images.shape[1:]), shown(info.input_shape)
            raise DataError(f"{where}: image shape is {found}; accepted: {described}, or set dataset.resize")
        return Split(images, labels)

    def files(self, source: Source, split: str) -> Split:
        """List the image files of one split, for streaming.

        Raises:
            DataError: If there is no such split, files are missing, or the images are not separate files.
        """
        self._with_split(source, split)
        if self.list_files is None:
            raise DataError(
                f"data set {self.name!r} cannot be streamed: its images are not separate files; "
                "set dataset.stream to false"
            )
        return self.list_files(source, split)

    def training_samples(self, source: Source) -> int:
        """Return the number of training samples; 0 if they have to be read first.

        Raises:
            DataError: If the data set is missing or has the wrong layout.
        """
        if self.list_files is not None:
            return len(self.files(source, "train").labels)
        return self.count(source) if self.count is not None else 0

    def unreadable(self, source: Source) -> dict[str, list[str]]:
        """Return one line for each image file that cannot be read, by split; splits without any are omitted.

        Raises:
            DataError: If the data set is missing or has the wrong layout.
        """
        if self.check is None:
            return {}
        faults = {split: self.check(source, split) for split in self.describe(source).splits}
        return {split: lines for split, lines in faults.items() if lines}

    def _with_split(self, source: Source, split: str) -> DatasetInfo:
        info = self.describe(source)
        if split not in info.splits:
            raise DataError(f"data set {self.name!r} has no split {split!r}; accepted: {', '.join(info.splits)}")
        return info


DATASETS: Registry[Dataset] = Registry("dataset", "kdsweep.datasets")


def register(dataset: Dataset) -> Dataset:
    """Register a data set under its name."""
    return DATASETS.add(dataset.name, dataset)


def checked(split: tuple[Any, Any], where: str, least: int = 0) -> Split:
    """Check that `split` has images [N, C, H, W] and labels [N]; return them as contiguous, writable arrays.

    Args:
        split: Images and labels.
        where: Name of the split in error messages.
        least: The smallest label; -1 stands for none.

    Raises:
        DataError: If it does not; the message starts with `where`.
    """
    images, labels = np.asarray(split[0]), np.asarray(split[1])
    if images.dtype != np.uint8 or images.ndim != 4:
        found = f"{images.dtype} of shape {shown(images.shape)}"
        raise DataError(f"{where}: images are {found}; accepted: uint8 of shape N x C x H x W")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        found = f"{labels.dtype} of shape {shown(labels.shape)}"
        raise DataError(f"{where}: labels are {found}; accepted: integers of shape N")
    if len(images) != len(labels):
        found = f"{count_of(len(images), 'image')} but {count_of(len(labels), 'label')}"
        raise DataError(f"{where}: {found}; accepted: one label per image")
    if images.size == 0:
        found = f"images are of shape {shown(images.shape)}"
        raise DataError(f"{where}: {found}; accepted: at least one image and one pixel")
    if labels.min() < least:
        raise DataError(f"{where}: found label {labels.min()}; accepted: {least} and above")
    if labels.max() >= MAX_CLASSES:
        raise DataError(f"{where}: found label {labels.max()}; accepted: class indices below {MAX_CLASSES:,}")
    writable = np.require(images, requirements=("C", "W"))
    return Split(writable, np.require(labels, np.int64, requirements=("C", "W")))


def sample_digests(samples: NDArray[Any], labels: NDArray[Any]) -> list[str]:
    """Return a digest of each sample with its label, for `Dataset.content`.

    Args:
        samples: [N, ...].
        labels: [N].
    """
    rows = np.ascontiguousarray(samples).reshape(len(samples), -1).view(np.uint8)
    return [
        hashlib.sha256(row.tobytes() + int(label).to_bytes(8, "little")).hexdigest()[:32]
        for row, label in zip(rows, labels, strict=True)
    ]


def shown(shape: tuple[int, ...]) -> str:
    """Format a shape for an error message: `3 x 32 x 32`."""
    return " x ".join(map(str, shape)) or "()"
