"""Batches of images: normalised and augmented on the fly, from memory or streamed from files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kdsweep import datasets
from kdsweep.errors import DataError
from kdsweep.lazy import torch
from kdsweep.storage.streamed import Reference, ahead, is_reference, need_room
from kdsweep.tasks import base
from kdsweep.tasks.image.views import View
from kdsweep.tasks.order import on_device


class Images:
    """A split for a device: images are stored as uint8 and normalised batch by batch.

    Args:
        images: uint8 [N, C, H, W], on the device or memory-mapped on the host.
        labels: int64 [N], on the device.
        mean: Per-channel mean of images scaled to 0..1; 0 if empty.
        std: Per-channel standard deviation, likewise; 1 if empty.
    """

    def __init__(
        self, images: torch.Tensor, labels: torch.Tensor, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
    ):
        self.images = images
        self.labels = labels
        self.device = labels.device
        channels = images.shape[1]
        self.mean = mean or (0.0,) * channels
        self.std = std or (1.0,) * channels
        spread = torch.tensor(self.std, dtype=torch.float64)
        scale, shift = 1 / (255 * spread), -torch.tensor(self.mean, dtype=torch.float64) / spread
        self._scale, self._shift = self._everywhere(scale), self._everywhere(shift)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def resident(self) -> bool:
        """Whether batches are made on the device alone, from positions there."""
        return self.images.device == self.device

    def view(self, augment: str, seed: int, number: int) -> View:
        """One view of all images, counted from 1."""
        return View(augment, seed, number, len(self), self.device)

    def targets(self, index: torch.Tensor, view: base.View) -> torch.Tensor | base.Mixed:
        """The labels at `index` [B] in a view."""
        height, width = self.images.shape[2:]
        return cast(View, view).labels(self.labels, index, (height, width))

    def batch(self, index: torch.Tensor, view: base.View | None = None) -> torch.Tensor:
        """Normalised float32 images [B, C, H, W] at `index` [B], channels last."""
        (read,) = _read([index], view)
        return self._ready(self.pixels(read), read.to(self.device), view)

    def sequence(self, indices: Sequence[torch.Tensor], view: base.View | None = None) -> Iterator[torch.Tensor]:
        read = _read(indices, view)
        moved = on_device(read, self.device)
        stored = moved if self.images.device == self.device else read
        return (self._ready(self.pixels(at), index, view) for at, index in zip(stored, moved, strict=True))

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all normalised images with their labels, in order."""
        for start in range(0, len(self), size):
            yield self.normalised(self._moved(self.images[start : start + size])), self.labels[start : start + size]

    def first(self, count: int) -> Images:
        return Images(self.images[:count], self.labels[:count], self.mean, self.std)

    def pixels(self, index: torch.Tensor) -> torch.Tensor:
        """uint8 images [B, C, H, W] on the device where they are stored, channels last; pinned on the way to a GPU."""
        # Select in NHWC layout, where each image is one contiguous copy; selecting in NCHW would gather single bytes.
        stored = self.images.permute(0, 2, 3, 1)
        index = index.to(stored.device)
        if stored.device == self.device:
            return stored.index_select(0, index).permute(0, 3, 1, 2)
        # PyTorch keeps pinned memory for the next batch once the copy from it is done.
        pinned = torch.empty(len(index), *stored.shape[1:], dtype=torch.uint8, pin_memory=True)
        return torch.index_select(stored, 0, index, out=pinned).permute(0, 3, 1, 2)

    def _ready(self, pixels: torch.Tensor, read: torch.Tensor, view: base.View | None) -> torch.Tensor:
        images = self._moved(pixels)
        if view is None:
            return self.normalised(images)
        return cast(View, view).finish(self.normalised(view.apply(images, read)), read)

    def _moved(self, images: torch.Tensor) -> torch.Tensor:
        """Move a batch to the device; copies from the host overlap with the device's work."""
        if self.device.type != "cuda" or images.device.type == "cuda":
            return images.to(self.device)
        if not images.is_pinned():
            images = images.pin_memory()
        with torch.cuda.stream(self._copies):
            moved = images.to(self.device, non_blocking=True)
        stream = torch.cuda.current_stream(self.device)
        stream.wait_stream(self._copies)
        moved.record_stream(stream)
        return moved

    @cached_property
    def _copies(self) -> torch.cuda.Stream:
        """The stream of the copies to the GPU: the next batch is copied while the GPU trains on the previous one."""
        return torch.cuda.Stream(self.device)

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Convert uint8 [B, C, H, W] to normalised float32, channels last."""
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.mul_(self._scale).add_(self._shift)

    def _everywhere(self, per_channel: torch.Tensor) -> torch.Tensor:
        """Expand [C] to a float32 image [1, C, H, W]; broadcasting rows of 3 values would defeat vectorisation."""
        image = per_channel.float().to(self.device)[None, :, None, None].expand(1, *self.images.shape[1:])
        return image.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Fault:
    """Stands for a batch that cannot be had."""

    error: DataError | OSError


@dataclass(frozen=True)
class Files:
    """Image files that are decoded on demand; the data set of a DataLoader.

    Attributes:
        dataset: Name of the kdsweep data set that reads the files.
        paths: Paths of the images, or references to objects in a store, in the order of their labels.
        resize: Target side in pixels; 0 keeps the original size.
        shape: (channels, height, width) after resizing.
    """

    dataset: str
    paths: Sequence[str]
    resize: int
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, positions: Iterable[int] | Fault) -> torch.Tensor | Fault:
        """Decode images to uint8 [B, C, H, W], channels last; return the error if one cannot be read, or fetched."""
        if isinstance(positions, Fault):
            return positions
        try:
            images = [torch.from_numpy(self._decode(self.paths[at]).copy()) for at in positions]
        except DataError as error:  # returned, because the DataLoader would turn it into a traceback
            return Fault(error)
        return torch.stack(images).to(memory_format=torch.channels_last)

    def fetched(self, batches: Sequence[Sequence[int]]) -> Iterator[Sequence[int]]:
        """Yield the positions of each batch once its images are on this node."""
        if not any(map(is_reference, self.paths)):
            return iter(batches)
        needed = [[path for at in batch if is_reference(path := self.paths[at])] for batch in batches]
        return (batches[number] for number in ahead(needed))

    def _decode(self, path: str) -> NDArray[np.uint8]:
        read = datasets.get(self.dataset).read_file
        assert read is not None
        if not is_reference(path):
            return read(path, self.resize, self.shape)
        with Reference.of(path).named() as local:
            return read(str(local), self.resize, self.shape)


class Fetched:
    """The batches of a loader, each once its images are on this node: its workers only decode.

    Args:
        files: The image files.
        batches: Positions of the images of each batch.
    """

    def __init__(self, files: Files, batches: Sequence[Sequence[int]]):
        self._files = files
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Sequence[int] | Fault]:
        try:
            yield from self._files.fetched(list(self._batches))
        except (DataError, OSError) as error:  # raised here, it would break the loader
            yield Fault(error)


class StreamedImages(Images):
    """A split whose images are decoded by worker processes during training.

    Args:
        files: The image files.
        labels: int64 [N], on the device.
        mean: Per-channel mean of images scaled to 0..1; 0 if empty.
        std: Per-channel standard deviation, likewise; 1 if empty.
    """

    def __init__(self, files: Files, labels: torch.Tensor, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()):
        super().__init__(torch.empty(0, *files.shape, dtype=torch.uint8), labels, mean, std)
        need_room(files.paths)
        self._files = files
        self._indices: list[list[int]] = []

    @property
    def resident(self) -> bool:
        """Return False: files are read on the host."""
        return False

    def sequence(self, indices: Sequence[torch.Tensor], view: base.View | None = None) -> Iterator[torch.Tensor]:
        """Yield batches while the workers decode the next ones."""
        read = _read(indices, view)
        for index, pixels in zip(on_device(read, self.device), self.decoded(read), strict=True):
            yield self._ready(pixels, index, view)

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all normalised images with their labels, in order."""
        indices = torch.arange(len(self)).split(size)
        return zip(self.sequence(indices), self.labels.split(size), strict=True)

    def first(self, count: int) -> Images:
        """The first `count` images, decoded into memory."""
        return Images(self.pixels(torch.arange(min(count, len(self)))), self.labels[:count], self.mean, self.std)

    def decoded(self, indices: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield batches of uint8 [B, C, H, W] on the host.

        Args:
            indices: Positions of the images of each batch [B], on the CPU.

        Raises:
            DataError: If an image cannot be read.
        """
        self._indices[:] = [index.tolist() for index in indices]
        return map(_whole, self._loader)

    @cached_property
    def _loader(self) -> Iterable[torch.Tensor | Fault]:
        """Loader whose workers persist across epochs and trials; each iteration reads the current `_indices`."""
        from torch.utils.data import DataLoader

        loader: Any = DataLoader
        return loader(  # type: ignore[no-any-return]
            self._files,
            batch_sampler=Fetched(self._files, self._indices),
            collate_fn=_as_they_are,
            num_workers=torch.get_num_threads(),
            persistent_workers=True,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the default would draw from the global generator that dropout uses
        )

    def pixels(self, index: torch.Tensor) -> torch.Tensor:
        (positions,) = self._files.fetched([index.tolist()])
        return _whole(self._files.__getitems__(positions))


def _read(indices: Sequence[torch.Tensor], view: base.View | None) -> Sequence[torch.Tensor]:
    """Return the positions of the images that each batch is made of: with a view that mixes them, also the partners."""
    return indices if view is None else [cast(View, view).read(index) for index in indices]


def _as_they_are(images: torch.Tensor | Fault) -> torch.Tensor | Fault:
    return images


def _whole(images: torch.Tensor | Fault) -> torch.Tensor:
    if isinstance(images, Fault):
        raise images.error
    return images
