"""The seeded train/validation split of a sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets import Split
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import DataError
from kdsweep.seeds import derived_seed


def train_and_val(
    spec: DatasetSpec, seed: int, splits: tuple[str, ...], read: Callable[[str], Split], noun: str
) -> tuple[Split, Split]:
    """Read the training split, reduce it to `subset`, and split off validation samples.

    Args:
        spec: The `dataset` section.
        seed: Seed of the split.
        splits: The data set's own splits; if there is a `val`, it is used unchanged.
        read: Reads one split by name.
        noun: Plural noun for samples in messages.

    Raises:
        DataError: If there are too few samples.
    """
    train = read("train")
    train = _taken(train, stratified(train.labels, spec.subset or len(train.labels), seed)[0])
    if "val" in splits:
        val = read("val")
    else:
        kept = round(len(train.labels) * (1 - spec.val_fraction))
        train_index, val_index = stratified(train.labels, kept, seed)
        train, val = _taken(train, train_index), _taken(train, val_index)
    if not len(train.labels) or not len(val.labels):
        raise DataError(
            f"dataset {spec.name!r}: {len(train.labels)} {noun} to train on and {len(val.labels)} to select by; "
            "accepted: at least one of each (dataset.subset, dataset.val_fraction)"
        )
    return train, val


def stratified(labels: NDArray[np.int64], count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a stratified split of positions.

    Args:
        labels: [N].
        count: Size of the first part, capped at N.
        seed: Seed of the draw.

    Returns:
        Sorted positions of the first part and of the rest. Counts per class are rounded by largest remainder.
    """
    count = min(count, len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * (count / len(labels))
    quota = np.floor(exact).astype(np.int64)
    remainder = np.argsort(-(exact - quota), kind="stable")[: count - quota.sum()]
    quota[remainder] += 1
    first: list[NDArray[np.int64]] = []
    rest: list[NDArray[np.int64]] = []
    for label, take in zip(classes, quota, strict=True):
        generator = np.random.default_rng(derived_seed(seed, "split", int(label)))
        members = generator.permutation(np.flatnonzero(labels == label))
        first.append(members[:take])
        rest.append(members[take:])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(rest))


def checksum(array: NDArray[Any]) -> str:
    """SHA-256 of an array's contents."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _taken(split: Split, index: NDArray[np.int64]) -> Split:
    if len(index) == len(split.labels):
        return split
    return Split(split.images[index], split.labels[index])
