"""Images on their way into a model: normalised batch by batch, varied by keyed draws, resident or streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdsweep import datasets
from kdsweep.errors import DataError
from kdsweep.lazy import torch
from kdsweep.tasks import base
from kdsweep.tasks.image.views import View


class Images:
    """A split for a device: images stay uint8 and become normalised floats batch by batch.

    Args:
        images: [N, C, H, W] of uint8, on the device or, a file in the page cache, on the host.
        labels: [N] of int64, on the device.
        mean: Per channel, of images scaled to 0..1; unless given, 0.
        std: Per channel; unless given, 1.
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

    def view(self, augment: str, seed: int, epoch: int) -> View:
        """How the images look in one epoch, counted from 1."""
        return View(augment, seed, epoch, len(self), self.device)

    def batch(self, index: torch.Tensor, view: base.View | None = None) -> torch.Tensor:
        """Normalised images [B, C, H, W] of float32, channels last, at `index` [B]."""
        return self._ready(self._pixels(index), index, view)

    def sequence(self, indices: Sequence[torch.Tensor], view: base.View | None = None) -> Iterator[torch.Tensor]:
        """One batch after the other, as `batch` returns them."""
        return (self.batch(index, view) for index in indices)

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All normalised images with their labels, in order."""
        for start in range(0, len(self), size):
            yield self.normalised(self._moved(self.images[start : start + size])), self.labels[start : start + size]

    def first(self, count: int) -> Images:
        """The first images, as a split of their own."""
        return Images(self.images[:count], self.labels[:count], self.mean, self.std)

    def _pixels(self, index: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] of uint8 where they lie, channels last."""
        # Whole pixels in a row: a copy, where picking along channels would gather byte by byte.
        return self.images.permute(0, 2, 3, 1).index_select(0, index.to(self.images.device)).permute(0, 3, 1, 2)

    def _ready(self, pixels: torch.Tensor, index: torch.Tensor, view: base.View | None) -> torch.Tensor:
        images = self._moved(pixels)
        return self.normalised(images if view is None else view.apply(images, index))

    def _moved(self, images: torch.Tensor) -> torch.Tensor:
        """A batch on the device; one that comes from the host is copied while the device still works."""
        if self.device.type == "cuda" and images.device.type == "cpu" and not images.is_pinned():
            images = images.pin_memory()
        return images.to(self.device, non_blocking=True)

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, C, H, W] to normalised float32, channels last."""
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.mul_(self._scale).add_(self._shift)

    def _everywhere(self, per_channel: torch.Tensor) -> torch.Tensor:
        """[C] as an image [1, C, H, W] of float32: rows of three numbers would keep a processor from its wide steps."""
        image = per_channel.float().to(self.device)[None, :, None, None].expand(1, *self.images.shape[1:])
        return image.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Files:
    """Image files that are decoded as they are needed; what a DataLoader's processes are given.

    Attributes:
        dataset: The data set that reads them.
        paths: Of the images, in the order of their labels.
        resize: Side in pixels that they are resized to; 0 keeps them.
        shape: (channels, height, width) that they then have.
    """

    dataset: str
    paths: Sequence[str]
    resize: int
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, positions: Iterable[int]) -> torch.Tensor | DataError:
        """Images [B, C, H, W] of uint8, channels last, or what is wrong with one of them."""
        read = datasets.get(self.dataset).read_file
        assert read is not None
        try:
            images = [torch.from_numpy(read(self.paths[at], self.resize, self.shape).copy()) for at in positions]
        except DataError as error:  # raised, it would come out of the DataLoader as a traceback
            return error
        return torch.stack(images).to(memory_format=torch.channels_last)


class StreamedImages(Images):
    """A split whose images are decoded by processes while a model trains on those before.

    Args:
        files: The images.
        labels: [N] of int64, on the device.
        mean: Per channel, of images scaled to 0..1; unless given, 0.
        std: Per channel; unless given, 1.
    """

    def __init__(self, files: Files, labels: torch.Tensor, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()):
        super().__init__(torch.empty(0, *files.shape, dtype=torch.uint8), labels, mean, std)
        self._files = files
        self._indices: list[list[int]] = []

    def sequence(self, indices: Sequence[torch.Tensor], view: base.View | None = None) -> Iterator[torch.Tensor]:
        """One batch after the other, the next ones decoded ahead."""
        for index, pixels in zip(indices, self.decoded(indices), strict=True):
            yield self._ready(pixels, index, view)

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All normalised images with their labels, in order."""
        indices = torch.arange(len(self), device=self.device).split(size)
        return zip(self.sequence(indices), self.labels.split(size), strict=True)

    def first(self, count: int) -> Images:
        """The first images, decoded."""
        return Images(self._pixels(torch.arange(min(count, len(self)))), self.labels[:count], self.mean, self.std)

    def decoded(self, indices: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Batches of uint8 [B, C, H, W] on the host.

        Raises:
            DataError: If an image cannot be read.
        """
        self._indices[:] = [index.tolist() for index in indices]
        return map(_whole, self._loader)

    @cached_property
    def _loader(self) -> Iterable[torch.Tensor | DataError]:
        """Its processes stay from epoch to epoch and from trial to trial, and take the batches of the day."""
        from torch.utils.data import DataLoader

        loader: Any = DataLoader
        return loader(  # type: ignore[no-any-return]
            self._files,
            batch_sampler=self._indices,
            collate_fn=_as_they_are,
            num_workers=torch.get_num_threads(),
            persistent_workers=True,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # or it would draw from the one that dropout draws from
        )

    def _pixels(self, index: torch.Tensor) -> torch.Tensor:
        return _whole(self._files.__getitems__(index.tolist()))


def _as_they_are(images: torch.Tensor | DataError) -> torch.Tensor | DataError:
    return images


def _whole(images: torch.Tensor | DataError) -> torch.Tensor:
    if isinstance(images, DataError):
        raise images
    return images
