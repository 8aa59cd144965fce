"""The contract of a data set: what it holds, told without reading it, and its splits as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdsweep.registry import Registry


@dataclass(frozen=True)
class Source:
    """Where a data set lies and how it is read.

    Attributes:
        root: An absolute directory.
        download: Whether missing files may be fetched.
        resize: Side in pixels that images are resized to (shorter side, then a centre crop); 0 keeps their size.
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
    """One split: images [N, C, H, W] of uint8 and labels [N] of int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """A declared data set.

    Attributes:
        describe: `describe(source) -> DatasetInfo`, quick and without torch; raises DataError.
        load: `load(source, split) -> Split`; raises DataError.
        summary: One line for `kdsweep datasets`.
    """

    describe: Callable[[Source], DatasetInfo]
    load: Callable[[Source, str], Split]
    summary: str


DATASETS: Registry[Dataset] = Registry("dataset", "kdsweep.datasets")
