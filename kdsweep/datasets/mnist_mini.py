"""A part of MNIST included in the package, so that a first sweep needs no download."""

from __future__ import annotations

import numpy as np

from kdsweep.datasets import embedded
from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split, register


def _inspect(source: Source) -> DatasetInfo:
    return DatasetInfo((1, 28, 28), tuple("0123456789"), mean=(0.1307,), std=(0.3081,))


def _read(source: Source, split: str) -> Split:
    with np.load(embedded.path("mnist_mini.npz"), allow_pickle=False) as arrays:
        return Split(arrays[f"{split}_images"][:, None], arrays[f"{split}_labels"])


register(
    Dataset(
        "mnist_mini",
        "part of MNIST, included in kdsweep: 4,000 + 2,000 images",
        _inspect,
        _read,
        count=lambda source: 4000,
    )
)
