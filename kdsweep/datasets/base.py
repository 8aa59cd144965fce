"""The contract of a data set: what it holds, told without reading it, and its splits as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.images import resized
from kdsweep.errors import DataError
from kdsweep.registry import Registry

MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Source:
    """Where a data set lies and how it is read.

    Attributes:
        root: An absolute directory.
        download: Whether missing files may be fetched.
        resize: Side in pixels that images are resized to (shorter side, then a centre crop); 0 keeps them.
    """

    root: Path
    download: bool = True
    resize: int = 0


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before its images are read.

    Attributes:
        input_shape: (channels, height, width) of one image.
        class_names: In the order of the labels.
        mean: Per channel, of images scaled to 0..1; empty when it is to be computed from the training split.
        std: Per channel; empty likewise.
        splits: The splits it has: `train`, and `val` and `test` where they exist.
    """

    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    splits: tuple[str, ...] = ("train", "test")


class Split(NamedTuple):
    """One split: images [N, C, H, W] of uint8, or the paths [N] of their files, and labels [N] of int64."""

    images: NDArray[Any]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """A declared data set; `describe` and `load` are what the rest of kdsweep calls.

    Attributes:
        name: As a sweep file and the errors say it.
        summary: One line for `kdsweep datasets`.
        inspect: `inspect(source) -> DatasetInfo` of the images as they lie, quick and without torch.
        read: `read(source, split) -> Split`; images that are not of the source's size yet are resized then.
        list_files: `list_files(source, split) -> Split` of paths, where each image is a file of its own.
        read_file: `read_file(path, resize, shape)` reads one of those as [C, H, W] of that shape.
    """

    name: str
    summary: str
    inspect: Callable[[Source], DatasetInfo]
    read: Callable[[Source, str], Split]
    list_files: Callable[[Source, str], Split] | None = None
    read_file: Callable[[str, int, tuple[int, int, int]], NDArray[np.uint8]] | None = None

    def describe(self, source: Source) -> DatasetInfo:
        """What the data set holds, with the size that `load` will give its images.

        Raises:
            DataError: If it is missing or not laid out as it should be.
        """
        info = self.inspect(source)
        if not source.resize:
            return info
        return replace(info, input_shape=(info.input_shape[0], source.resize, source.resize))

    def load(self, source: Source, split: str) -> Split:
        """Read one split.

        Returns:
            Images [N, C, H, W] of the described shape and labels [N]; both may be written to.

        Raises:
            DataError: If there is no such split, its files are missing or unreadable, or what they hold is no
                images with labels of the described classes.
        """
        info = self._with_split(source, split)
        where = f"data set {self.name!r}, split {split!r}"
        images, labels = checked(self.read(source, split), where)
        if labels.max() >= len(info.class_names):
            raise DataError(f"{where}: a label is {labels.max()}; accepted: 0 to {len(info.class_names) - 1}")
        if source.resize:
            images = resized(images, source.resize)
        if images.shape[1:] != info.input_shape:
            found, described = shown(images.shape[1:]), shown(info.input_shape)
            raise DataError(f"{where}: images of {found}; accepted: {described}, or set dataset.resize")
        return Split(images, labels)

    def files(self, source: Source, split: str) -> Split:
        """The paths of one split's images, for those that are read as they are needed.

        Raises:
            DataError: If there is no such split, its files are missing, or its images are no files of their own.
        """
        self._with_split(source, split)
        if self.list_files is None:
            raise DataError(f"data set {self.name!r}: its images are no files of their own; accepted: stream: false")
        return self.list_files(source, split)

    def _with_split(self, source: Source, split: str) -> DatasetInfo:
        info = self.describe(source)
        if split not in info.splits:
            raise DataError(f"data set {self.name!r} has no split {split!r}; accepted: {', '.join(info.splits)}")
        return info


DATASETS: Registry[Dataset] = Registry("dataset", "kdsweep.datasets")


def register(dataset: Dataset) -> Dataset:
    """Declare a data set under its name."""
    return DATASETS.add(dataset.name, dataset)


def checked(split: tuple[Any, Any], where: str) -> Split:
    """`split` as contiguous, writable arrays, if it is images [N, C, H, W] and as many labels [N].

    Raises:
        DataError: Saying what was found and what is accepted, after `where`.
    """
    images, labels = np.asarray(split[0]), np.asarray(split[1])
    if images.dtype != np.uint8 or images.ndim != 4:
        found = f"{images.dtype} of shape {shown(images.shape)}"
        raise DataError(f"{where}: images are {found}; accepted: uint8 of shape N x C x H x W")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        found = f"{labels.dtype} of shape {shown(labels.shape)}"
        raise DataError(f"{where}: labels are {found}; accepted: integers of shape N")
    if len(images) != len(labels):
        raise DataError(f"{where}: {len(images)} images with {len(labels)} labels; accepted: as many of each")
    if images.size == 0:
        found = f"images are of shape {shown(images.shape)}"
        raise DataError(f"{where}: {found}; accepted: at least one image and one pixel")
    if labels.min() < 0:
        raise DataError(f"{where}: a label is {labels.min()}; accepted: 0 and above")
    if labels.max() >= MOST_CLASSES:
        raise DataError(f"{where}: a label is {labels.max()}; accepted: class numbers from 0, below {MOST_CLASSES:,}")
    writable = np.require(images, requirements=("C", "W"))
    return Split(writable, np.require(labels, np.int64, requirements=("C", "W")))


def shown(shape: tuple[int, ...]) -> str:
    """A shape as errors say it."""
    return " x ".join(map(str, shape)) or "()"
