"""Reads map-style data sets of the running program once, and stores them as array files for `datasets.stored`."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.base import MAX_CLASSES, shown
from kdsweep.datasets.stored import DESCRIPTION, STORED
from kdsweep.datasets.unlabelled import SAMPLES
from kdsweep.errors import DataError
from kdsweep.storage.arrays import ArrayWriter, has_array
from kdsweep.storage.files import write_json
from kdsweep.words import count_of, kind_of

BATCH = 256
TWICE = 4  # samples that are read twice, to notice random transforms
LARGEST_STEP = 1e-6  # between a pixel divided by 255 and what a transform made of it
IMAGES = "PIL images, uint8 images, or floats from 0 to 1 as from ToTensor, not normalised"
ACCEPTED = "pairs of a sample (a tensor, an array or a PIL image) and a class number"


@dataclass(frozen=True)
class StoredObjects:
    """Where a data set was stored.

    Attributes:
        name: Name of the data set that reads it, one of `STORED`.
        root: Its directory.
    """

    name: str
    root: Path


class _NotPixelsError(Exception):
    """A sample is no image of 8 bits, so all samples have to be kept as they are."""


def store(splits: Mapping[str, Any], folder: Path, tell: Callable[[int, int, str], None]) -> StoredObjects:
    """Read each split once and store it, unless the same samples are stored already.

    Images of 8 bits, also those scaled to 0..1 as by torchvision's ToTensor, become `stored_images`; other samples are
    kept as float32 or int64 tensors.

    Args:
        splits: Map-style data sets by split; `train` is required.
        folder: Directory of all stored data sets.
        tell: Receives how many samples of how many have been read, and what they are.

    Raises:
        DataError: If one is not a map-style data set of labelled samples of one shape, or a transform is random.
    """
    for split, data in splits.items():
        _check(split, data)
    kinds = ("image", "tensors") if _is_floating(_sample(splits["train"], "train", 0)[0]) else ("image", "integers")
    for kind in kinds:
        partial = folder / f".{os.getpid()}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            digest = _write(splits, kind, partial, tell)
            root = folder / digest
            if not all(has_array(root / f"{split}_samples.bin") for split in splits):
                shutil.rmtree(root, ignore_errors=True)
                partial.replace(root)
            return StoredObjects(STORED[kind], root)
        except _NotPixelsError:
            continue
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    raise AssertionError("every sample is a tensor")


def described(splits: Mapping[str, Any], folder: Path) -> StoredObjects:
    """Check the data sets by their first samples, and describe them as `store` would, without storing any sample.

    Args:
        splits: As for `store`.
        folder: Where the description is written.

    Raises:
        DataError: As `store` does, for what the first samples show.
    """
    for split, data in splits.items():
        _check(split, data)
    first = _sample(splits["train"], "train", 0)[0]
    try:
        kind, shape = "image", _pixels(first).shape
    except _NotPixelsError:
        kind, shape = ("tensors" if _is_floating(first) else "integers"), first.shape
    names = _class_names(splits["train"], 2)
    write_json(folder / DESCRIPTION, {"input_shape": shape, "class_names": names, "splits": list(splits)})
    return StoredObjects(STORED[kind], folder)


def store_unlabelled(
    data: Any, folder: Path, tell: Callable[[int, int, str], None] = lambda *_: None, most: int = 0
) -> Path:
    """Read images without labels once and store them for `datasets.unlabelled`, unless they are stored already.

    Args:
        data: A map-style data set of images, or of pairs whose first part is an image.
        folder: Directory of all stored data sets.
        tell: As for `store`.
        most: Number of images to read; 0 reads all.

    Returns:
        Their directory.

    Raises:
        DataError: If it is not a map-style data set of images of 8 bits and of one shape, or a transform is random.
    """
    images = _Images(data, most)
    _check("unlabelled", images)
    partial = folder / f".{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    hashed, shape, done = hashlib.sha256(b"unlabelled"), (), 0
    writer = ArrayWriter(partial / SAMPLES)
    try:
        for samples, _ in _batches(images, "unlabelled", "image"):
            shape = shape or samples.shape[1:]
            if samples.shape[1:] != shape:
                found = f"found shape {shown(samples.shape[1:])} after {shown(shape)}"
                raise DataError(f"unlabelled: {found}; accepted: images of one shape (add a resize to the transform)")
            done += len(samples)
            tell(done, len(images), "unlabelled images read")
            writer.append_array(samples)
            hashed.update(np.ascontiguousarray(samples).data)
        writer.close()
        root = folder / f"unlabelled-{hashed.hexdigest()[:16]}"
        if not has_array(root / SAMPLES):
            shutil.rmtree(root, ignore_errors=True)
            partial.replace(root)
        return root
    except _NotPixelsError:
        raise DataError(f"unlabelled: found samples that are not 8-bit images; accepted: {IMAGES}") from None
    finally:
        writer.discard()
        shutil.rmtree(partial, ignore_errors=True)


class _Images:
    """A map-style data set of images, as one of labelled samples: a label, if there is one, does not count."""

    def __init__(self, data: Any, most: int):
        self._data, self._most = data, most
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            found = f"{kind_of(data)} without len() or [index]"
            raise DataError(f"unlabelled: found {found}; accepted: a map-style data set of images")

    def __len__(self) -> int:
        return min(len(self._data), self._most or len(self._data))

    def __getitem__(self, index: int) -> tuple[Any, int]:
        item = self._data[index]
        return (item[0] if isinstance(item, tuple | list) and item else item), 0


def _check(split: str, data: Any) -> None:
    """Refuse what is not a map-style data set, and random transforms, of which one draw would be kept for all epochs.

    Raises:
        DataError: In one line.
    """
    if hasattr(data, "dataset") and hasattr(data, "batch_size"):
        raise DataError(f"{split}: found {kind_of(data)}; accepted: its data set, {split}.dataset")
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        found = f"{kind_of(data)} without len() or [index]"
        raise DataError(f"{split}: found {found}; accepted: a map-style data set of {ACCEPTED}")
    if not length_of(data, split):
        raise DataError(f"{split}: found no samples; accepted: at least one")
    for index in range(min(TWICE, len(data))):
        first, second = (_sample(data, split, index)[0] for _ in range(2))
        if not np.array_equal(first, second):
            raise DataError(
                f"{split}[{index}]: differs each time it is read, because its transform is random; accepted: samples "
                "without random transforms, which kdsweep reads once (augment=[...] varies them in each epoch)"
            )


def _write(splits: Mapping[str, Any], kind: str, root: Path, tell: Callable[[int, int, str], None]) -> str:
    """Write all splits. Return the digest of their content."""
    hashed = hashlib.sha256(kind.encode())
    shape: tuple[int, ...] = ()
    classes, done, total = 0, 0, sum(map(len, splits.values()))
    for split, data in splits.items():
        hashed.update(split.encode())
        writers = [ArrayWriter(root / f"{split}_{part}.bin") for part in ("samples", "labels")]
        try:
            for samples, labels in _batches(data, split, kind):
                shape = shape or samples.shape[1:]
                if samples.shape[1:] != shape:
                    found = f"found shape {shown(samples.shape[1:])} after {shown(shape)}"
                    raise DataError(f"{split}: {found}; accepted: samples of one shape (add a resize to the transform)")
                classes = max(classes, int(labels.max()) + 1)
                done += len(labels)
                tell(done, total, f"samples read as {STORED[kind].removeprefix('stored_')}")
                for writer, rows in zip(writers, (samples, labels), strict=True):
                    writer.append_array(rows)
                    hashed.update(np.ascontiguousarray(rows).data)
            for writer in writers:
                writer.close()
        finally:
            for writer in writers:
                writer.discard()
    names = _class_names(splits["train"], classes)
    hashed.update(repr((shape, names)).encode())
    write_json(root / DESCRIPTION, {"input_shape": shape, "class_names": names, "splits": list(splits)})
    return hashed.hexdigest()[:16]


def _batches(data: Any, split: str, kind: str) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    """Yield samples [n, ...] of the task's dtype and labels [n]."""
    for start in range(0, len(data), BATCH):
        pairs = [_sample(data, split, index) for index in range(start, min(start + BATCH, len(data)))]
        samples = [_as(kind, sample, f"{split}[{start + place}]") for place, (sample, _) in enumerate(pairs)]
        if len({sample.shape for sample in samples}) > 1:
            shapes = " and ".join(sorted({shown(sample.shape) for sample in samples})[:2])
            raise DataError(f"{split}: found shapes {shapes}; accepted: samples of one shape (add a resize)")
        yield np.stack(samples), np.array([label for _, label in pairs], np.int64)


def _as(kind: str, sample: NDArray[Any], where: str) -> NDArray[Any]:
    """Return a sample in the form that the task stores.

    Raises:
        _NotPixelsError: If the task stores images, and it is no image of 8 bits.
    """
    if kind == "image":
        return _pixels(sample)
    wanted = np.dtype(np.float32 if kind == "tensors" else np.int64)
    if sample.dtype.kind not in ("fiu" if kind == "tensors" else "iu"):
        raise DataError(f"{where}: found {sample.dtype}; accepted: {wanted}, as the first sample of train")
    return sample.astype(wanted)


def _pixels(sample: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image as uint8 [C, H, W].

    Raises:
        _NotPixelsError: If it is none, or not of 8 bits.
    """
    if sample.ndim not in (2, 3):
        raise _NotPixelsError
    image = sample[None] if sample.ndim == 2 else sample
    if image.dtype != np.uint8:
        if not _is_floating(image) or sample.ndim == 2:  # a matrix of floats is not taken for an image
            raise _NotPixelsError
        with np.errstate(invalid="ignore", over="ignore"):
            steps = np.rint(image * 255)
            if not (np.abs(steps / 255 - image) <= LARGEST_STEP).all() or steps.min() < 0 or steps.max() > 255:
                raise _NotPixelsError
        image = steps.astype(np.uint8)
    elif image.shape[2] <= 4 < image.shape[0]:  # channels last
        image = image.transpose(2, 0, 1)
    return image


def length_of(data: Any, where: str) -> int:
    """Return the number of items of the user's data set.

    Raises:
        DataError: If the data set raises anything.
    """
    with _told(where):
        return len(data)


def item_of(data: Any, where: str, index: int) -> Any:
    """Return an item of the user's data set.

    Raises:
        DataError: If the data set raises anything.
    """
    with _told(where):
        return data[index]


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Turn whatever the user's data set raises into one line."""
    try:
        yield
    except (Exception, SystemExit) as error:  # user code may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{where}: {reason}") from error


def _sample(data: Any, split: str, index: int) -> tuple[NDArray[Any], int]:
    """Read one sample and its label.

    Raises:
        DataError: If the data set raises anything, or returns something else.
    """
    where = f"{split}[{index}]"
    item = item_of(data, where, index)
    if not isinstance(item, tuple | list) or len(item) != 2:
        found = count_of(len(item), "value") if isinstance(item, tuple | list) else kind_of(item)
        raise DataError(f"{where}: found {found}; accepted: {ACCEPTED}")
    return _array(item[0], where), _label(item[1], where)


def _array(sample: Any, where: str) -> NDArray[Any]:
    if hasattr(sample, "detach"):  # a tensor; isinstance would import torch
        tensor = sample.detach().cpu()
        sample = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    elif hasattr(sample, "convert"):  # a PIL image
        grey = sample.mode in ("1", "L")
        image = np.asarray(sample.convert("L" if grey else "RGB"))
        return image[None] if grey else image.transpose(2, 0, 1)
    if isinstance(sample, np.ndarray) and sample.dtype.kind in "fiu":
        if _is_floating(sample) and (odd := _not_finite(sample)):
            raise DataError(f"{where}: found {odd} in the sample; accepted: numbers that are finite as float32")
        return sample
    found = str(sample.dtype) if isinstance(sample, np.ndarray) else kind_of(sample)
    raise DataError(f"{where}: the sample is {found}; accepted: {ACCEPTED}")


def _label(label: Any, where: str) -> int:
    number = label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < MAX_CLASSES:
        raise DataError(f"{where}: the label is {label!r}; accepted: a class number from 0")
    return number


def _class_names(data: Any, count: int) -> list[str]:
    """Return the class names that the data set, or the one that it is a part of, knows; else numbers."""
    while not hasattr(data, "classes") and hasattr(data, "dataset"):
        data = data.dataset
    names = getattr(data, "classes", None)
    listed = list(names) if isinstance(names, list | tuple) else []
    known = all(isinstance(name, str) for name in listed) and len(set(listed)) == len(listed) >= count
    return listed if known and listed else [str(number) for number in range(count)]


def _not_finite(sample: NDArray[Any]) -> str:
    """Return the first number that a float32 cannot hold, in words; empty if there is none."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(sample.astype(np.float32, copy=False))
    return "" if finite.all() else f"{sample[~finite][0]:g}"


def _is_floating(sample: NDArray[Any]) -> bool:
    return bool(sample.dtype.kind == "f")
