"""The data of a sweep: one seeded split, decoded once and mapped by every process, or streamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdsweep import datasets
from kdsweep.datasets import Dataset, DatasetInfo, Source, Split
from kdsweep.datasets.image_folder import SPLITS
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import DataError
from kdsweep.lazy import torch
from kdsweep.registry import is_user_object
from kdsweep.seeds import derived_seed, digest_of
from kdsweep.storage.arrays import array_shape, has_array, map_array, save_array
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import Store
from kdsweep.tasks.image.batches import Files, Images, StreamedImages

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RESIDENT_SHARE = 0.25
SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True)
class PreparedData:
    """The splits of one sweep, decoded into files.

    Attributes:
        root: The directory of the files.
        digest: Names the images, the split and its seed.
        input_shape: (channels, height, width).
        class_names: In the order of the labels.
        mean: Per channel, of images scaled to 0..1.
        std: Per channel.
        streams: The data set whose files are decoded as they are needed; empty where all were decoded.
        resize: Side in pixels that those files are resized to; 0 keeps them.
    """

    root: Path
    digest: str
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    streams: str = ""
    resize: int = 0

    @property
    def num_classes(self) -> int:
        """How many classes."""
        return len(self.class_names)

    def split(self, name: SplitName, device: torch.device) -> Images:
        """One split for a device: mapped on a CPU, copied to a GPU where it takes a small part of its memory."""
        labels = map_array(self.root / f"{name}_labels.bin")
        if self.streams:
            paths = json.loads((self.root / f"{name}_files.json").read_text())
            files = Files(self.streams, paths, self.resize, self.input_shape)
            return StreamedImages(files, labels.to(device), self.mean, self.std)
        # They lie in the file as [N, H, W, C], and so come out of it channels last.
        images = map_array(self.root / f"{name}_images.bin").permute(0, 3, 1, 2)
        if device.type != "cuda" or images.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            images = images.to(device)
        return Images(images, labels.to(device), self.mean, self.std)

    def count(self, name: SplitName) -> int:
        """How many images a split has."""
        return array_shape(self.root / f"{name}_labels.bin")[0]

    def described(self) -> dict[str, Any]:
        """Everything but where it lies, as JSON."""
        return {key: value for key, value in asdict(self).items() if key != "root"}

    @classmethod
    def load(cls, root: Path) -> PreparedData:
        """Open prepared data."""
        described = json.loads((root / "data.json").read_text())
        return cls(root, **{key: _tuples(value) for key, value in described.items()})


def prepare(spec: DatasetSpec, seed: int, store: Store) -> PreparedData:
    """Split a data set and, unless it is streamed, decode it, once for all sweeps of a storage that ask for the same.

    Args:
        spec: The data set.
        seed: Of the split.
        store: Where the files go.

    Raises:
        DataError: If the data set cannot be read or is too small to split.
    """
    source, dataset = source_of(spec)
    info = dataset.describe(source)
    identity: dict[str, Any] = {**spec.model_dump(exclude={"download", "augment", "stream"}), "seed": seed, "layout": 2}
    loaded: Split | None = None
    if is_user_object(spec.name):
        loaded = dataset.load(source, "train")
        identity["content"] = digest_of([_checksum(loaded.images), _checksum(loaded.labels)])
    elif spec.name == "image_folder":
        identity["files"] = _listing(source.root)
    else:
        identity["root"] = ""
    if spec.stream:
        identity["stream"] = True
    digest = digest_of(identity)[:16]
    root = store.data(digest)
    if (root / "data.json").is_file() and all(_is_whole(root, name) for name in ("train", "val")):
        return PreparedData.load(root)
    train, val = split_arrays(spec, seed, loaded)
    for name, split in (("train", train), ("val", val)):
        _write(root, name, split)
    mean, std = _normalisation(spec, info, train)
    write_json(root / "data.json", {
        "digest": digest, "input_shape": info.input_shape, "class_names": info.class_names,
        "mean": mean, "std": std, "streams": spec.name if spec.stream else "", "resize": spec.resize,
    })  # fmt: skip
    return PreparedData.load(root)


def source_of(spec: DatasetSpec) -> tuple[Source, Dataset]:
    """Where a data set lies, and what reads it."""
    return Source(Path(spec.root), spec.download, spec.resize), datasets.get(spec.name)


def split_arrays(spec: DatasetSpec, seed: int, loaded: Split | None = None) -> tuple[Split, Split]:
    """The training and validation images of a sweep, from the data set's own files; their paths if it is streamed.

    Args:
        spec: The data set.
        seed: Of the split.
        loaded: All its training images, if they were read already.

    Raises:
        DataError: If the data set cannot be read or is too small to split.
    """
    source, dataset = source_of(spec)
    train = loaded or _read(spec, "train")
    train = _taken(train, stratified(train.labels, spec.subset or len(train.labels), seed)[0])
    if "val" in dataset.describe(source).splits:
        val = _read(spec, "val")
    else:
        kept = round(len(train.labels) * (1 - spec.val_fraction))
        train_index, val_index = stratified(train.labels, kept, seed)
        train, val = _taken(train, train_index), _taken(train, val_index)
    if not len(train.labels) or not len(val.labels):
        raise DataError(
            f"dataset {spec.name!r}: {len(train.labels)} images to train on and {len(val.labels)} to select by; "
            "accepted: at least one of each (dataset.subset, dataset.val_fraction)"
        )
    return train, val


def prepare_test(spec: DatasetSpec, data: PreparedData) -> bool:
    """Have the test split beside the others; only confirmation and evaluation ask for it.

    Returns:
        Whether the data set has a test split.
    """
    source, dataset = source_of(spec)
    if "test" not in dataset.describe(source).splits:
        return False
    if not _is_whole(data.root, "test"):
        _write(data.root, "test", _read(spec, "test"))
    return True


def raw_images(spec: DatasetSpec, seed: int, split: str) -> Images:
    """A split as it lies in the data set's own files, pixels from 0 to 1.

    Args:
        spec: The data set.
        seed: Of the split.
        split: `train`, `val` or `test`.

    Raises:
        DataError: If it cannot be read.
    """
    source, dataset = source_of(spec)
    if split == "test":
        images, labels = _read(spec, "test")
    else:
        images, labels = split_arrays(spec, seed)[0 if split == "train" else 1]
    shape = dataset.describe(source).input_shape
    if spec.stream:
        return StreamedImages(Files(spec.name, list(images), spec.resize, shape), torch.from_numpy(labels))
    return Images(torch.from_numpy(images), torch.from_numpy(labels))


def stratified(labels: NDArray[np.int64], count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split positions so that each class keeps its share.

    Args:
        labels: [N].
        count: Size of the first part; larger than N is N.
        seed: Of the draw.

    Returns:
        Sorted positions of the first part and of the rest. Classes get their share by largest remainder.
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


def _read(spec: DatasetSpec, split: SplitName) -> Split:
    """A split as the data set has it: its images, or their paths where they are streamed."""
    source, dataset = source_of(spec)
    return dataset.files(source, split) if spec.stream else dataset.load(source, split)


def _taken(split: Split, index: NDArray[np.int64]) -> Split:
    if len(index) == len(split.labels):
        return split
    return Split(split.images[index], split.labels[index])


def _is_whole(root: Path, name: str) -> bool:
    there = has_array(root / f"{name}_images.bin") or (root / f"{name}_files.json").is_file()
    return there and has_array(root / f"{name}_labels.bin")


def _write(root: Path, name: str, split: Split) -> None:
    if split.images.ndim == 1:
        write_json(root / f"{name}_files.json", split.images.tolist())
    else:
        pixels = torch.from_numpy(np.ascontiguousarray(split.images.transpose(0, 2, 3, 1)))
        save_array(pixels, root / f"{name}_images.bin")
    save_array(torch.from_numpy(np.ascontiguousarray(split.labels)), root / f"{name}_labels.bin")


def _normalisation(spec: DatasetSpec, info: DatasetInfo, train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = info.input_shape[0]
    if spec.normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    if spec.normalize == "imagenet":
        return IMAGENET
    if info.mean:
        return info.mean, info.std
    # By histogram: exact, and without a float copy of the images.
    counts = np.zeros((channels, 256), np.int64)
    for images in _chunks(spec, info, train):
        counts += np.stack([np.bincount(images[:, c].ravel(), minlength=256) for c in range(channels)])
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt(np.maximum(shares @ values**2 - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _chunks(spec: DatasetSpec, info: DatasetInfo, train: Split) -> Iterable[NDArray[np.uint8]]:
    """All training images [n, C, H, W], however they are held."""
    if not spec.stream:
        return [train.images]
    files = Files(spec.name, list(train.images), spec.resize, info.input_shape)
    images = StreamedImages(files, torch.from_numpy(train.labels))
    return (pixels.numpy() for pixels in images.decoded(torch.arange(len(files)).split(256)))


def _listing(root: Path) -> str:
    """What lies in an image folder's splits, by name, size and time: a changed folder is decoded again."""
    found: list[list[str | int]] = []
    seen: set[str] = set()
    for split in SPLITS:
        for parent, folders, names in os.walk(root / split, followlinks=True):
            if (real := os.path.realpath(parent)) in seen:  # a link that leads back up
                folders.clear()
                continue
            seen.add(real)
            for path in (Path(parent, name) for name in names):
                if path.is_file():
                    found.append([str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns])
    return digest_of(sorted(found))


def _checksum(array: NDArray[Any]) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
