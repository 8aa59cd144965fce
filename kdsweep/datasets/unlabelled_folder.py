"""A folder of images without classes: students learn from a teacher alone, and are measured by agreement with it.

ROOT holds the images, in any subfolders; a fixed tenth of them is the test split. Or ROOT/train holds them, and there
may be ROOT/val and ROOT/test. If the folders of ROOT/test are named as the teacher's classes, its images have these
labels. The images are read as those of `image_folder`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split, register
from kdsweep.datasets.image_folder import SPLITS, decoded, faults_of, read_file, size_of_first
from kdsweep.datasets.trees import LocalTree
from kdsweep.errors import DataError
from kdsweep.seeds import derived_seed, digest_of
from kdsweep.words import count_of

HELD_OUT = 10  # one image in ten is a test image
LAYOUT = "a folder of images, or one with train/ and optionally val/ and test/"


def _inspect(source: Source) -> DatasetInfo:
    root, classes = source.root, source.classes
    if not os.path.isdir(root):
        raise DataError(f"{root}: no such directory; accepted: {LAYOUT}")
    if len(set(classes)) < max(2, len(classes)):
        found = f"the class names {', '.join(classes)}" if classes else "no class names"
        raise DataError(
            f"found {found}; accepted: dataset.classes, at least 2 different names in the order of the teacher's "
            "logits, or teacher: {student: ...}, whose classes are known"
        )
    splits = tuple(split for split in SPLITS if os.path.isdir(root / split)) if _has_splits(root) else ("train", "test")
    width, height = _size(source)
    return DatasetInfo((3, height, width), classes, splits=splits)


def _has_splits(root: Path) -> bool:
    return os.path.isdir(root / "train")


def _size(source: Source) -> tuple[int, int]:
    """Return (width, height) of the first image."""
    tree = LocalTree(source.root)
    images = tree.images("train") if _has_splits(source.root) else tree.images()
    return size_of_first(tree, images, source.skip_unreadable)


def _every(source: Source, split: str) -> list[str]:
    """List the files of a split, sorted by path, also those that cannot be read."""
    if _has_splits(source.root):
        return LocalTree(source.root).images(split)
    paths = LocalTree(source.root).images()
    order = np.random.default_rng(derived_seed(0, "test")).permutation(len(paths))
    tested = set(order[: len(paths) // HELD_OUT].tolist())
    if not tested:
        raise DataError(f"{source.root}: {count_of(len(paths), 'image')}; accepted: at least {HELD_OUT}")
    return [path for place, path in enumerate(paths) if (place in tested) == (split == "test")]


def _list_files(source: Source, split: str) -> Split:
    paths = _every(source, split)
    if source.skip_unreadable:
        faults = _faults(source, paths)
        paths = [path for path, fault in zip(paths, faults, strict=True) if not fault]
    return Split(np.array(paths), _labels(source, split, paths))


def _faults(source: Source, paths: list[str]) -> list[str]:
    return faults_of(source, LocalTree(source.root), paths, _size(source))


def _labels(source: Source, split: str, paths: list[str]) -> NDArray[np.int64]:
    """Return the labels of a test split whose folders are classes; otherwise -1.

    Raises:
        DataError: If only some of the images have a label.
    """
    folder, places = source.root / split, {name: place for place, name in enumerate(source.classes)}
    none = np.full(len(paths), -1, np.int64)
    if (
        split != "test"
        or not _has_splits(source.root)
        or not places.keys() & set(LocalTree(source.root).folders(split))
    ):
        return none
    above = [Path(path).relative_to(folder).parts[0] for path in paths]
    if strange := sorted(set(above) - places.keys()):
        raise DataError(
            f"{folder}: {strange[0]!r} is no class, but other folders there are; accepted: a folder for each class "
            f"({', '.join(source.classes[:5])}{', ...' if len(places) > 5 else ''}), or none"
        )
    return np.array([places[name] for name in above], np.int64)


def _read(source: Source, split: str) -> Split:
    width, height = _size(source)
    paths, labels = _list_files(source, split)
    return Split(decoded(source, split, paths, (height, width)), labels)


def _content(source: Source, split: str) -> list[str]:
    paths, labels = _list_files(source, split)
    named: list[Any] = [digest_of(labels.tolist())] if labels.max() >= 0 else []
    return LocalTree(source.root).digests(paths.tolist(), source.hashes) + named


def _check(source: Source, split: str) -> list[str]:
    return [fault for fault in _faults(source, _every(source, split)) if fault]


register(
    Dataset(
        "unlabelled_folder",
        f"your own images without labels: {LAYOUT}",
        _inspect,
        _read,
        list_files=_list_files,
        read_file=read_file,
        content=_content,
        check=_check,
        task="image_agreement",
        labelled=False,
    )
)
