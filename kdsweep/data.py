"""Images for training: one seeded split, decoded once, mapped by every process, varied by keyed draws."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdsweep import datasets
from kdsweep.arrays import has_array, map_array, save_array, write_json
from kdsweep.datasets import Dataset, DatasetInfo, Source, Split
from kdsweep.datasets.image_folder import SPLITS
from kdsweep.errors import DataError
from kdsweep.layout import Store
from kdsweep.lazy import F, torch
from kdsweep.registry import is_user_object
from kdsweep.seeds import derived_seed, digest_of
from kdsweep.spec import DatasetSpec

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
    """

    root: Path
    digest: str
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """How many classes."""
        return len(self.class_names)

    def split(self, name: SplitName, device: torch.device) -> Images:
        """One split for a device: mapped on a CPU, copied to a GPU where it takes a small part of its memory."""
        # They lie in the file as [N, H, W, C], and so come out of it channels last.
        images = map_array(self.root / f"{name}_images.bin").permute(0, 3, 1, 2)
        labels = map_array(self.root / f"{name}_labels.bin")
        if device.type != "cuda" or images.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            images = images.to(device)
        return Images(images, labels.to(device), self.mean, self.std)

    def described(self) -> dict[str, Any]:
        """Everything but where it lies, as JSON."""
        return {key: value for key, value in asdict(self).items() if key != "root"}

    @classmethod
    def load(cls, root: Path) -> PreparedData:
        """Open prepared data."""
        described = json.loads((root / "data.json").read_text())
        return cls(root, **{key: _tuples(value) for key, value in described.items()})


def prepare(spec: DatasetSpec, seed: int, store: Store) -> PreparedData:
    """Decode and split a data set, once for all sweeps of a storage that ask for the same.

    Args:
        spec: The data set.
        seed: Of the split.
        store: Where the files go.

    Raises:
        DataError: If the data set cannot be read or is too small to split.
    """
    source, dataset = source_of(spec)
    info = dataset.describe(source)
    identity: dict[str, Any] = {**spec.model_dump(exclude={"download", "augment"}), "seed": seed, "layout": 2}
    loaded: Split | None = None
    if is_user_object(spec.name):
        loaded = dataset.load(source, "train")
        identity["content"] = digest_of([_checksum(loaded.images), _checksum(loaded.labels)])
    elif spec.name == "image_folder":
        identity["files"] = _listing(source.root)
    else:
        identity["root"] = ""
    digest = digest_of(identity)[:16]
    root = store.data(digest)
    kept = [root / f"{name}_{part}.bin" for name in ("train", "val") for part in ("images", "labels")]
    if (root / "data.json").is_file() and all(has_array(path) for path in kept):
        return PreparedData.load(root)
    train, val = split_arrays(spec, seed, loaded)
    for name, split in (("train", train), ("val", val)):
        _write(root, name, split)
    mean, std = _normalisation(spec, info, train)
    write_json(root / "data.json", {
        "digest": digest, "input_shape": train.images.shape[1:], "class_names": info.class_names,
        "mean": mean, "std": std,
    })  # fmt: skip
    return PreparedData.load(root)


def source_of(spec: DatasetSpec) -> tuple[Source, Dataset]:
    """Where a data set lies, and what reads it."""
    return Source(Path(spec.root), spec.download, spec.resize), datasets.get(spec.name)


def split_arrays(spec: DatasetSpec, seed: int, loaded: Split | None = None) -> tuple[Split, Split]:
    """The training and validation images of a sweep, from the data set's own files.

    Args:
        spec: The data set.
        seed: Of the split.
        loaded: All its training images, if they were read already.

    Raises:
        DataError: If the data set cannot be read or is too small to split.
    """
    source, dataset = source_of(spec)
    train = loaded or dataset.load(source, "train")
    train = _taken(train, stratified(train.labels, spec.subset or len(train.labels), seed)[0])
    if "val" in dataset.describe(source).splits:
        val = dataset.load(source, "val")
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
    """Decode the test split beside the others; only confirmation and evaluation ask for it.

    Returns:
        Whether the data set has a test split.
    """
    source, dataset = source_of(spec)
    if "test" not in dataset.describe(source).splits:
        return False
    if not all(has_array(data.root / f"test_{part}.bin") for part in ("images", "labels")):
        _write(data.root, "test", dataset.load(source, "test"))
    return True


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


class View:
    """How every training image looks in one epoch: which are mirrored and how far each is shifted.

    Drawn on the CPU from (seed, epoch) alone, so that every trial sees the same view of a sample in an epoch and the
    teacher's outputs for it can be computed once.

    Args:
        augment: `none`, `flip` or `crop_flip`.
        seed: Of the sweep.
        epoch: From 1.
        count: Training images.
        device: Where the images are.
    """

    def __init__(self, augment: str, seed: int, epoch: int, count: int, device: torch.device):
        generator = torch.Generator().manual_seed(derived_seed(seed, "view", epoch))
        self.changes = augment != "none"
        self.shifts = augment == "crop_flip"
        self._mirrored = (torch.rand(count, generator=generator) < 0.5).to(device)
        # As shares of the border, so that one draw serves any image size.
        self._shift = torch.rand(count, 2, generator=generator).to(device)

    def apply(self, images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Vary images [B, C, H, W] of uint8 that stand at `index` [B] of the training split."""
        if not self.changes:
            return images
        batch, channels, height, width = images.shape
        device = images.device
        rows = torch.arange(height, device=device).expand(batch, height)
        columns = torch.arange(width, device=device).expand(batch, width)
        columns = torch.where(self._mirrored[index, None], width - 1 - columns, columns)
        if self.shifts:
            borders = torch.tensor([max(1, height // 8), max(1, width // 8)], device=device)
            shift = (self._shift[index] * (2 * borders + 1)).long()
            rows, columns = rows + shift[:, :1], columns + shift[:, 1:]
            pad_rows, pad_columns = max(1, height // 8), max(1, width // 8)
            images = F.pad(images, (pad_columns, pad_columns, pad_rows, pad_rows))
        sample = torch.arange(batch, device=device)[:, None, None, None]
        channel = torch.arange(channels, device=device)[None, :, None, None]
        return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


class Images:
    """A split for a device: images stay uint8 and become normalised floats batch by batch.

    Args:
        images: [N, C, H, W] of uint8, on the device or, a file in the page cache, on the host.
        labels: [N] of int64, on the device.
        mean: Per channel, of images scaled to 0..1.
        std: Per channel.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]):
        self.images = images
        self.labels = labels
        self.device = labels.device
        self.mean = mean
        self.std = std
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self._scale = scale.float().to(self.device)[:, None, None]
        self._shift = shift.float().to(self.device)[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: torch.Tensor, view: View | None = None) -> torch.Tensor:
        """Normalised images [B, C, H, W] of float32, channels last, at `index` [B]."""
        # Whole pixels in a row: a copy, where picking along channels would gather byte by byte.
        pixels = self.images.permute(0, 2, 3, 1).index_select(0, index.to(self.images.device))
        images = self._moved(pixels.permute(0, 3, 1, 2))
        return self.normalised(images if view is None else view.apply(images, index))

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All normalised images with their labels, in order."""
        for start in range(0, len(self), size):
            yield self.normalised(self._moved(self.images[start : start + size])), self.labels[start : start + size]

    def _moved(self, images: torch.Tensor) -> torch.Tensor:
        """A batch on the device; one that comes from the host is copied while the device still works."""
        if self.device.type == "cuda" and images.device.type == "cpu":
            images = images.pin_memory()
        return images.to(self.device, non_blocking=True)

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, C, H, W] to normalised float32, channels last."""
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.mul_(self._scale).add_(self._shift)


def _taken(split: Split, index: NDArray[np.int64]) -> Split:
    if len(index) == len(split.labels):
        return split
    return Split(split.images[index], split.labels[index])


def _write(root: Path, name: str, split: Split) -> None:
    save_array(torch.from_numpy(np.ascontiguousarray(split.images.transpose(0, 2, 3, 1))), root / f"{name}_images.bin")
    save_array(torch.from_numpy(np.ascontiguousarray(split.labels)), root / f"{name}_labels.bin")


def _normalisation(spec: DatasetSpec, info: DatasetInfo, train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = train.images.shape[1]
    if spec.normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    if spec.normalize == "imagenet":
        return IMAGENET
    if info.mean:
        return info.mean, info.std
    # By histogram: exact, and without a float copy of the images.
    counts = np.stack([np.bincount(train.images[:, c].ravel(), minlength=256) for c in range(channels)])
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt(np.maximum(shares @ values**2 - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


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
