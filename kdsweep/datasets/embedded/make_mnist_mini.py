"""Create `mnist_mini.npz` from MNIST: 4,000 training and 2,000 test images, balanced over the digits.

    python -m kdsweep.datasets.embedded.make_mnist_mini MNIST_RAW_DIR

The directory must contain MNIST's four uncompressed idx files (torchvision's MNIST/raw). The selection is seeded, and
numpy's zip files contain no timestamps, so the output is reproducible byte for byte. Each split has `images`
[N, 28, 28] uint8, `labels` [N] int64 and `indices` [N] int64, the sorted positions in MNIST's own split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray
from torchvision.datasets.mnist import read_image_file, read_label_file

PER_DIGIT = {"train": 400, "test": 200}
PREFIX = {"train": "train", "test": "t10k"}


def read_mnist(raw: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read a split of MNIST: images [N, 28, 28] and labels [N]."""
    images = read_image_file(str(raw / f"{PREFIX[split]}-images-idx3-ubyte"))
    labels = read_label_file(str(raw / f"{PREFIX[split]}-labels-idx1-ubyte"))
    return images.numpy(), labels.numpy()


def choose(labels: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Choose `count` images of each digit; return their indices, sorted."""
    digits = (np.flatnonzero(labels == digit) for digit in range(10))
    return np.sort(np.concatenate([random.choice(digit, count, replace=False) for digit in digits]))


def main(raw: Path) -> None:
    """Write `mnist_mini.npz` beside this file."""
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in PER_DIGIT.items():
        images, labels = read_mnist(raw, split)
        indices = choose(labels, count, random)
        arrays |= {
            f"{split}_images": images[indices],
            f"{split}_labels": labels[indices],
            f"{split}_indices": indices,
        }
    np.savez_compressed(Path(__file__).with_name("mnist_mini.npz"), **arrays)


if __name__ == "__main__":
    typer.run(main)
