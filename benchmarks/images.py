"""Images and teacher for the benchmarks: real images from a folder, or generated ones of CIFAR-10's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

import kdsweep
from kdsweep.datasets import Source

CLASSES = 10
MEAN, STD = 0.45, 0.25
FILE = "images.npz"
TEACHER_EPOCHS = 2


def load(source: Source, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The data set `images:load` of the sweeps: reads what `provide` wrote to `source.root`."""
    if split not in ("train", "val"):
        raise ValueError(f"no split {split}")
    return arrays(source.root, split)


def arrays(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, 3, 32, 32] and labels [N] of one split."""
    with np.load(folder / FILE) as file:
        return file[f"{split}_images"], file[f"{split}_labels"]


def provide(folder: Path, real: Path | None, train: int, val: int) -> None:
    """Write the images (see `write`) and a briefly trained teacher to a folder."""
    write(folder, real, train, val)
    images, labels = arrays(folder, "train")
    torch.save(_teacher(images, labels).state_dict(), teacher_file(folder))


def write(folder: Path, real: Path | None, train: int, val: int) -> None:
    """Write the images to a folder.

    Args:
        folder: Where the file goes.
        real: An image folder of 32 x 32 images to take them from; None generates them.
        train: Images to train on.
        val: Images to select by.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = _generated(train + val) if real is None else _real(real, train + val)
    np.savez(
        folder / FILE,
        train_images=images[:train], train_labels=labels[:train], val_images=images[train:], val_labels=labels[train:],
    )  # fmt: skip


def teacher_file(folder: Path) -> Path:
    """Path of the teacher's state dict."""
    return folder / "teacher.pt"


def _generated(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Smooth patterns, one per class, with enough noise to make them non-trivial to learn."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, CLASSES, count)
    coarse = torch.from_numpy(draw.normal(size=(CLASSES, 3, 4, 4))).float()
    patterns = F.interpolate(coarse, size=32, mode="bicubic").numpy()
    pixels = 128 + 10 * patterns[labels] + 60 * draw.normal(size=(count, 3, 32, 32)).astype(np.float32)
    return pixels.clip(0, 255).astype(np.uint8), labels


def _real(folder: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    found = kdsweep.datasets.get("image_folder").load(Source(folder, False, 32), "train")
    if len(found.labels) < count:
        raise SystemExit(f"--data {folder}: {len(found.labels)} training images, {count} are needed")
    chosen = np.random.default_rng(0).permutation(len(found.labels))[:count]
    return found.images[chosen], found.labels[chosen]


def _teacher(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> nn.Module:
    torch.manual_seed(0)
    teacher = kdsweep.models.build("tutorial_teacher", (3, 32, 32), CLASSES).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=1e-3)
    inputs, targets = normalised(torch.from_numpy(images)), torch.from_numpy(labels)
    for _ in range(TEACHER_EPOCHS):
        for index in torch.randperm(len(targets)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(teacher(inputs[index]), targets[index]).backward()
            optimizer.step()
    return teacher.to(memory_format=torch.contiguous_format)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 [N, 3, H, W] to floats with about zero mean and unit variance."""
    return (images.float() / 255 - MEAN) / STD
