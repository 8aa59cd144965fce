"""Train the `mnist_mini` teacher on the 56,000 training images of MNIST that are not in `mnist_mini`.

    python -m kdsweep.datasets.embedded.train_mnist_mini_teacher MNIST_RAW_DIR

It uses plain cross-entropy, so that the teacher's probabilities stay soft. The number of epochs was fixed in advance
and the last weights are saved, so nothing is selected: accuracy on `mnist_mini` is accuracy on unseen images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import typer
from torch import nn
from torch.nn import functional as F

from kdsweep import models
from kdsweep.datasets import embedded
from kdsweep.datasets.embedded.make_mnist_mini import read_mnist
from kdsweep.storage import weights

MODEL, WIDTH = "mnist_teacher", 0.25
MEAN, STD = 0.1307, 0.3081
EPOCHS, BATCH, PEAK_LR, SHIFT = 8, 128, 3e-3, 1


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Normalise uint8 images [N, 28, 28] to the model's input [N, 1, 28, 28]."""
    return ((images[:, None].float() / 255) - MEAN) / STD


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Shift each of the images [B, 28, 28] by up to SHIFT pixels."""
    windows = F.pad(images, (SHIFT,) * 4).unfold(1, 28, 1).unfold(2, 28, 1)
    rows, columns = torch.randint(2 * SHIFT + 1, (2, len(images)))
    return windows[torch.arange(len(images)), rows, columns]


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Train on uint8 images [N, 28, 28] and labels [N]."""
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=PEAK_LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            loss = F.cross_entropy(model(normalised(shifted(images[batch]))), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.inference_mode()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Fraction of images [N, 28, 28] classified correctly."""
    return float((model(normalised(images)).argmax(1) == labels).float().mean())


def main(raw: Path) -> None:
    """Write `mnist_mini_teacher.safetensors` beside this file."""
    torch.manual_seed(0)
    with np.load(embedded.path("mnist_mini.npz"), allow_pickle=False) as mini:
        held_out = {name: torch.from_numpy(mini[name]) for name in mini.files}
    rest = (np.delete(array, held_out["train_indices"], 0) for array in read_mnist(raw, "train"))
    images, labels = map(torch.from_numpy, rest)
    model = models.build(MODEL, (1, 28, 28), 10, width=WIDTH).train()
    train(model, images, labels)
    model.eval()
    unseen, test = (
        accuracy(model, held_out[f"{split}_images"], held_out[f"{split}_labels"]) for split in ("train", "test")
    )
    metadata = {
        "model": MODEL,
        "width": str(WIDTH),
        "normalisation": f"(pixel / 255 - {MEAN}) / {STD}",
        "script": "kdsweep/datasets/embedded/train_mnist_mini_teacher.py",
        "trained_on": f"the {len(images):,} training images of MNIST that are not in mnist_mini",
        "accuracy_on_mnist_mini_train": f"{unseen:.4f}",
    }
    weights.save(model.state_dict(), Path(__file__).with_name("mnist_mini_teacher.safetensors"), metadata)
    typer.echo(f"accuracy on mnist_mini: train {unseen:.4f}, test {test:.4f}")


if __name__ == "__main__":
    typer.run(main)
