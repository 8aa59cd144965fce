"""The seeded train/validation split of a sweep."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets import Split
from kdsweep.datasets.section import DatasetSpec
from kdsweep.datasets.stored import STORED
from kdsweep.errors import DataError
from kdsweep.registry import is_user_object
from kdsweep.seeds import derived_seed, digest_of
from kdsweep.storage.files import write_json

MAX_OVERLAP = 0.1  # published data sets have some duplicates, too


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
        train_index, val_index = stratified(train.labels, trained_on(spec, len(train.labels)), seed)
        train, val = _taken(train, train_index), _taken(train, val_index)
    if not len(train.labels) or not len(val.labels):
        raise DataError(
            f"dataset {spec.name!r}: {len(train.labels)} {noun} to train on and {len(val.labels)} to select by; "
            "accepted: at least one of each (dataset.subset, dataset.val_fraction)"
        )
    return train, val


def trained_on(spec: DatasetSpec, count: int) -> int:
    """Return how many of `count` samples are left to train on once those for validation are split off."""
    return round(count * (1 - spec.val_fraction))


def contents(splits: Iterable[str], digests: Callable[[str], Sequence[str]], name: str, noun: str) -> dict[str, str]:
    """Hash each split of a data set.

    Args:
        splits: Names of the splits.
        digests: Returns the digest of each sample of a split, see `Dataset.content`.
        name: Name of the data set.
        noun: Plural noun for samples in messages.

    Raises:
        DataError: If two splits share more than `MAX_OVERLAP` of the samples of the smaller one: what is measured on
            them would say nothing about new samples.
    """
    samples = {split: digests(split) for split in splits}
    for first, second in combinations(samples, 2):
        smaller, larger = sorted((second, first), key=lambda split: len(samples[split]))
        known = frozenset(samples[larger])
        shared = sum(digest in known for digest in samples[smaller])
        if shared > MAX_OVERLAP * len(samples[smaller]):
            found = f"{shared} of the {len(samples[smaller])} {noun}"
            if name in STORED.values():  # the splits are arguments of kdsweep.sweep
                raise DataError(f"{smaller}: {found} are also in {larger}; accepted: {noun} that are not in {larger}")
            ignored = is_user_object(name) and shared == len(samples[smaller])
            hint = " (does the function use its argument `split`?)" if ignored else ""
            raise DataError(
                f"data set {name!r}: {found} of split {smaller!r} are also in {larger!r}; accepted: splits without "
                f"common samples{hint}"
            )
    return {split: digest_of(list(found))[:32] for split, found in samples.items()}


def is_stored(root: Path, found: Mapping[str, str]) -> bool:
    """Whether the test split stored in `root` has this content; it is not part of the directory's own digest."""
    path = root / "test.json"
    return (json.loads(path.read_text()) if path.is_file() else {}) == ({"content": found["test"]} if found else {})


def note_stored(root: Path, found: Mapping[str, str]) -> None:
    """Record the content of the test split that was stored in `root`."""
    if found:
        write_json(root / "test.json", {"content": found["test"]})


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


def _taken(split: Split, index: NDArray[np.int64]) -> Split:
    if len(index) == len(split.labels):
        return split
    return Split(split.images[index], split.labels[index])
