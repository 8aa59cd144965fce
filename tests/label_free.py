"""A folder of images without labels, and a teacher with random weights."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from kdsweep import models
from kdsweep.datasets import DATASETS, Source
from kdsweep.storage import weights

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"]


def coloured(split, count):
    """The first digits of a split, as different colours."""
    first = DATASETS["mnist_mini"].load(Source(None), split)
    grey = first.images[:count, 0]
    return np.stack([grey, 255 - grey, grey // 2], axis=-1), first.labels[:count]


def save(images, folder, groups):
    """Write images into one folder per group."""
    for number, (image, group) in enumerate(zip(images, groups, strict=True)):
        path = folder / group / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def photos(folder, count=120):
    """Images of any name in any folders."""
    return save(coloured("train", count)[0], folder, [f"day {number % 3}" for number in range(count)])


def split_photos(folder, count=60, tested=40):
    """train/ without classes, and test/ with the teacher's."""
    save(coloured("train", count)[0], folder / "train", ["."] * count)
    images, labels = coloured("test", tested)
    save(images, folder / "test", [NAMES[label] for label in labels])
    return folder


def teacher(path):
    """Weights of a teacher for 3 x 28 x 28 pixels and ten classes."""
    torch.manual_seed(0)
    model = models.build("mnist_student", input_shape=(3, 28, 28), num_classes=10, width=1.0)
    weights.save(model.state_dict(), path)
    return path


def values(root, checkpoint, storage, **sections):
    """The keys of a small sweep."""
    return {
        "name": "small",
        "dataset": {"name": "unlabelled_folder", "root": str(root), "classes": NAMES},
        "teacher": {"model": "mnist_student", "checkpoint": str(checkpoint)},
        "student": {"model": "mnist_student"},
        "space": {"method": ["kd", "mse"], "width": {"choice": [0.25, 0.5]}, "temperature": {"loguniform": [1, 8]}},
        "train": {"epochs": 3, "batch_size": 32, "lr": 3e-3, "precision": "float32"},
        "search": {"trials": 4, "sampler": "random"},
        "scheduler": {"name": "none"},
        "confirm": {"top": 2, "seeds": 2},
        "storage": str(storage),
    } | sections
