"""The image data of a sweep: one seeded split, decoded once and memory-mapped by every process, or streamed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kdsweep import datasets
from kdsweep.datasets import Dataset, DatasetInfo, Source, Split
from kdsweep.datasets.base import sample_digests
from kdsweep.datasets.section import DatasetSpec
from kdsweep.datasets.stored import STORED
from kdsweep.datasets.unlabelled import Unlabelled
from kdsweep.errors import DataError
from kdsweep.lazy import torch
from kdsweep.models import InputSpec
from kdsweep.registry import is_user_object
from kdsweep.seeds import digest_of
from kdsweep.storage.arrays import array_shape, has_array, map_array, save_array
from kdsweep.storage.files import write_json
from kdsweep.storage.hashes import FileHashes
from kdsweep.storage.paths import Store
from kdsweep.storage.streamed import Reference, bring, is_reference
from kdsweep.tasks.base import TASKS, SplitName, Task, counted
from kdsweep.tasks.image.batches import Files, Images, StreamedImages
from kdsweep.tasks.split import MAX_OVERLAP, contents, is_stored, note_stored, train_and_val

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RESIDENT_SHARE = 0.25
ADDED_LATER = ("mean", "std", "classes")  # keys that were not in earlier digests
MOST_FILES = 5  # unreadable files that an error lists


@dataclass(frozen=True)
class PreparedData:
    """The splits of one sweep, stored in files.

    Attributes:
        root: Directory of the files.
        digest: Hash of the images, the split and its seed.
        input_shape: (channels, height, width).
        class_names: Class names in label order.
        mean: Per-channel mean of images scaled to 0..1.
        std: Per-channel standard deviation, likewise.
        streams: Name of the data set if its files are decoded on demand; empty if all images were decoded in advance.
        resize: Target side in pixels for streamed files; 0 keeps the original size.
        unlabelled: Number of training images without a label; they come last, and their labels are -1.
        label_free: Whether no image has a label.
        contents: Digest of each split of the data set, as read by `prepare`; empty for a published data set.
        skipped: Number of unreadable files that were left out, by split.
    """

    root: Path
    digest: str
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    streams: str = ""
    resize: int = 0
    unlabelled: int = 0
    label_free: bool = False
    contents: Mapping[str, str] = field(default_factory=dict, compare=False)
    skipped: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def task(self) -> Task:
        return TASKS["image_agreement" if self.label_free else "image"]

    @property
    def input_spec(self) -> InputSpec:
        return InputSpec(self.input_shape)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def split(self, name: SplitName, device: torch.device) -> Images:
        """Load one split for a device: memory-mapped, or copied to a GPU if below RESIDENT_SHARE of free memory."""
        labels = map_array(self.root / f"{name}_labels.bin")
        if self.streams:
            paths = json.loads((self.root / f"{name}_files.json").read_text())
            files = Files(self.streams, paths, self.resize, self.input_shape)
            return StreamedImages(files, labels.to(device), self.mean, self.std)
        # The file stores [N, H, W, C], so batches come out channels last.
        images = map_array(self.root / f"{name}_images.bin").permute(0, 3, 1, 2)
        if device.type != "cuda" or images.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            images = images.to(device)
        return Images(images, labels.to(device), self.mean, self.std)

    def count(self, name: SplitName) -> int:
        return array_shape(self.root / f"{name}_labels.bin")[0]

    def described(self) -> dict[str, Any]:
        """Everything except `root`, `contents` and `skipped`, as JSON data; what is rare only where it holds."""
        rare = [name for name in ("unlabelled", "label_free") if not getattr(self, name)]
        left_out = {"root", "contents", "skipped", *rare}
        return {key: value for key, value in asdict(self).items() if key not in left_out}

    @classmethod
    def load(cls, root: Path) -> PreparedData:
        described = json.loads((root / "data.json").read_text())
        return cls(root, **{key: _tuples(value) for key, value in described.items()})


def prepare(spec: DatasetSpec, seed: int, store: Store) -> PreparedData:
    """Split a data set and decode it unless it is streamed; sweeps with the same data settings share the files.

    Args:
        spec: The `dataset` section.
        seed: Seed of the split.
        store: Storage for the files.

    Raises:
        DataError: If the data set cannot be read or is too small to split.
    """
    source, dataset = source_of(spec)
    info = dataset.describe(source)
    folder = spec.unlabelled_images(info.input_shape)
    skipped = _skipped(spec, dataset, folder)
    found = _contents(spec, dataset, store)
    asked = spec.model_dump(exclude={"download", "augment", "views", "stream", "skip_unreadable", "unlabelled", "text"})
    asked = {key: value for key, value in asked.items() if value or key not in ADDED_LATER}
    identity: dict[str, Any] = {**asked, "root": "", "seed": seed, "layout": 2}
    if found:
        identity["content"] = {split: digest for split, digest in found.items() if split != "test"}
    if spec.stream:
        identity["stream"] = True
    if folder:
        hashes = folder.digests(store.hashes(digest_of(str(folder.root))[:16]))
        identity["unlabelled"] = digest_of(hashes)
    digest = digest_of(identity)[:16]
    # Streamed files are listed by their paths, so each copy of the folder has a list of its own.
    roots = [spec.root, *([str(folder.root)] if folder else [])]
    root = store.data(digest_of([digest, *roots])[:16] if spec.stream else digest)
    if (root / "data.json").is_file() and all(_is_whole(root, name) for name in ("train", "val")):
        return replace(PreparedData.load(root), contents=found, skipped=skipped)
    train, val = split_arrays(spec, seed, dataset)
    mean, std = _normalisation(spec, info, train)  # of the labelled images, as without the others
    further = _unlabelled(spec, dataset, folder, val) if folder else None
    for name, split in (("train", _joined(train, further)), ("val", val)):
        _write(root, name, split)
    write_json(root / "data.json", {
        "digest": digest, "input_shape": info.input_shape, "class_names": info.class_names,
        "mean": mean, "std": std, "streams": spec.name if spec.stream else "", "resize": spec.resize,
        **({} if further is None else {"unlabelled": len(further)}),
        **({} if dataset.labelled else {"unlabelled": len(train.labels), "label_free": True}),
    })  # fmt: skip
    return replace(PreparedData.load(root), contents=found, skipped=skipped)


def _skipped(spec: DatasetSpec, dataset: Dataset, folder: Unlabelled | None) -> dict[str, int]:
    """Number of unreadable files by split.

    Raises:
        DataError: If there are any and they are not to be skipped; naming the first ones of every split.
    """
    source, _ = source_of(spec)
    unreadable = dataset.unreadable(source)
    if folder and (lines := folder.unreadable()):
        unreadable = {**unreadable, "unlabelled": lines}
    skipped = {split: len(lines) for split, lines in unreadable.items()}
    if unreadable and not spec.skip_unreadable:
        lines = [line for lines in unreadable.values() for line in lines]
        more = f"; and {len(lines) - MOST_FILES} more" if len(lines) > MOST_FILES else ""
        raise DataError(
            f"{'; '.join(lines[:MOST_FILES])}{more}; repair or remove {counted(skipped)}, or set "
            "dataset.skip_unreadable to true"
        )
    return skipped


def _contents(spec: DatasetSpec, dataset: Dataset, store: Store) -> dict[str, str]:
    """Digest of each split; empty for a published data set, which its name identifies."""
    source = replace(source_of(spec)[0], hashes=store.hashes(digest_of(spec.root)[:16]))
    digests = dataset.content
    if digests is None and is_user_object(spec.name):  # the user's own Dataset object, without `content`

        def digests(source: Source, split: str) -> list[str]:
            return sample_digests(*dataset.load(source, split))

    if digests is None:
        return {}
    read = partial(digests, source)
    return contents(dataset.describe(source).splits, read, spec.name, "images")


def _unlabelled(spec: DatasetSpec, dataset: Dataset, folder: Unlabelled, val: Split) -> NDArray[Any]:
    """Read the unlabelled images, or list their paths if they are streamed.

    Raises:
        DataError: If one cannot be read, or many images of the validation or test split are among them: what is
            measured on these would say nothing about new images.
    """
    found = np.array([str(path) for path in folder.paths()]) if spec.stream else folder.read()
    known = frozenset(map(_fingerprint, found))
    # Only the files of streamed images are compared, by their content.
    others = {"val": val.images}
    if "test" in dataset.describe(source_of(spec)[0]).splits:
        others["test"] = _read(spec, dataset, "test").images
    for split, images in others.items():
        if spec.stream:
            bring(images.tolist())
        shared = sum(_fingerprint(image) in known for image in images)
        if shared > MAX_OVERLAP * len(images):
            given = spec.name in STORED.values()  # by an argument of kdsweep.sweep
            where, there = ("unlabelled", "there") if given else ("dataset.unlabelled", f"in {folder.root}")
            raise DataError(
                f"{where}: {shared} of the {len(images)} images of split {split!r} are also {there}; accepted: images "
                "that are in neither the validation nor the test split"
            )
    return found


def _fingerprint(image: NDArray[Any] | str) -> str:
    """Hash an image, or the file of one."""
    if not isinstance(image, str):
        return hashlib.sha256(image.tobytes()).hexdigest()
    return FileHashes(None).of(Reference.of(image).path if is_reference(image) else Path(image))


def _joined(train: Split, further: NDArray[Any] | None) -> Split:
    """Return the training split followed by images without labels."""
    if further is None:
        return train
    labels = np.concatenate([train.labels, np.full(len(further), -1, np.int64)])
    return Split(np.concatenate([train.images, further]), labels)


def source_of(spec: DatasetSpec) -> tuple[Source, Dataset]:
    """Where the data set is stored, and the object that reads it."""
    return spec.source(), datasets.get(spec.name)


def split_arrays(spec: DatasetSpec, seed: int, opened: Dataset | None = None) -> tuple[Split, Split]:
    """The training and validation images of a sweep, read from the data set; file paths if it is streamed.

    Args:
        spec: The `dataset` section.
        seed: Seed of the split.
        opened: The data set, if already opened; reusing it avoids calling a user's function twice.

    Raises:
        DataError: If the data set cannot be read or is too small to split.
    """
    source, found = source_of(spec)
    dataset = opened or found

    def read(name: str) -> Split:
        return _read(spec, dataset, name)

    return train_and_val(spec, seed, dataset.describe(source).splits, read, "images")


def prepare_test(spec: DatasetSpec, data: PreparedData) -> bool:
    """Store the test split next to the others; only confirmation and evaluation need it.

    Returns:
        Whether the data set has a test split.
    """
    source, dataset = source_of(spec)
    if "test" not in dataset.describe(source).splits:
        return False
    if not _is_whole(data.root, "test") or not is_stored(data.root, data.contents):
        _write(data.root, "test", _read(spec, dataset, "test"))
        note_stored(data.root, data.contents)
    return True


def raw_images(spec: DatasetSpec, seed: int, split: str) -> Images:
    """A split read directly from the data set and not normalised: batches have pixels in 0..1.

    Args:
        spec: The `dataset` section.
        seed: Seed of the split.
        split: `train`, `val` or `test`.

    Raises:
        DataError: If the split cannot be read.
    """
    source, dataset = source_of(spec)
    if split == "test":
        images, labels = _read(spec, dataset, "test")
    else:
        images, labels = split_arrays(spec, seed)[0 if split == "train" else 1]
    shape = cast(tuple[int, int, int], dataset.describe(source).input_shape)
    if spec.stream:
        return StreamedImages(Files(spec.name, list(images), spec.resize, shape), torch.from_numpy(labels))
    return Images(torch.from_numpy(images), torch.from_numpy(labels))


def _read(spec: DatasetSpec, dataset: Dataset, split: str) -> Split:
    """Read one of the data set's own splits: images, or their paths if they are streamed."""
    source, _ = source_of(spec)
    return dataset.files(source, split) if spec.stream else dataset.load(source, split)


def _is_whole(root: Path, name: str) -> bool:
    there = has_array(root / f"{name}_images.bin") or (root / f"{name}_files.json").is_file()
    return there and has_array(root / f"{name}_labels.bin")


def _write(root: Path, name: str, split: Split) -> None:
    if split.images.ndim == 1:
        write_json(root / f"{name}_files.json", split.images.tolist())
    else:
        save_array(split.images.transpose(0, 2, 3, 1), root / f"{name}_images.bin")
    save_array(split.labels, root / f"{name}_labels.bin")


def _normalisation(spec: DatasetSpec, info: DatasetInfo, train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = info.input_shape[0]
    if spec.normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    if spec.normalize == "imagenet":
        return IMAGENET
    if spec.mean:
        return tuple(spec.mean), tuple(spec.std)
    if info.mean:
        return info.mean, info.std
    # Computed from histograms: exact, and without a float copy of the images.
    counts = np.zeros((channels, 256), np.int64)
    for images in _chunks(spec, info, train):
        counts += np.stack([np.bincount(images[:, c].ravel(), minlength=256) for c in range(channels)])
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt(np.maximum(shares @ values**2 - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _chunks(spec: DatasetSpec, info: DatasetInfo, train: Split) -> Iterable[NDArray[np.uint8]]:
    """All training images in chunks [n, C, H, W], streamed or not."""
    if not spec.stream:
        return [train.images]
    shape = cast(tuple[int, int, int], info.input_shape)
    files = Files(spec.name, list(train.images), spec.resize, shape)
    images = StreamedImages(files, torch.from_numpy(train.labels))
    return (pixels.numpy() for pixels in images.decoded(torch.arange(len(files)).split(256)))


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
