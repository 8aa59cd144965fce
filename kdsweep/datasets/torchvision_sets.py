"""Data sets that torchvision downloads and reads, in torchvision's folder layout.

Means and standard deviations are the commonly published ones of the training split.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split, register
from kdsweep.errors import DataError
from kdsweep.lazy import import_torchvision

DIGITS = tuple("0123456789")
CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())  # noqa: SIM905
CIFAR100 = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle
    bowl boy bridge bus butterfly camel can castle caterpillar cattle
    chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
    dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket
    rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class _Reader:
    """How torchvision reads a data set.

    Attributes:
        name: Name of the data set.
        kind: Name of torchvision's class.
        files: Path that torchvision expects below the root; may contain `{split}`.
        open: `open(kind, split, root=..., download=...) -> Split`, using torchvision's class.
        needs: A package that torchvision requires for it; empty if none.
    """

    name: str
    kind: str
    files: str
    open: Callable[..., Split]
    needs: str = ""

    def read(self, source: Source, split: str) -> Split:
        """Read the split, downloading it first if files are missing."""
        if self.needs and find_spec(self.needs) is None:
            raise DataError(f"data set {self.name!r} needs {self.needs}; run: pip install {self.needs}")
        from filelock import FileLock

        kind = getattr(import_torchvision("datasets"), self.kind)
        files = source.root / self.files.format(split=split)

        # torchvision's exceptions depend on the data set, the version and the kind of damage.
        with _quietly():
            try:
                return self.open(kind, split, root=source.root, download=False)
            except Exception as error:
                if not source.download:
                    reason = _line(error) if files.exists() else "it does not exist"
                    remedy = "put torchvision's files there or set dataset.download to true"
                    raise DataError(f"data set {self.name!r}: cannot read {files}: {reason}; {remedy}") from error
            try:
                source.root.mkdir(parents=True, exist_ok=True)
                with FileLock(source.root / f".{self.name}.lock"):  # only one process per machine downloads
                    return self.open(kind, split, root=source.root, download=True)
            except Exception as error:
                remedy = "put torchvision's files there, or delete incomplete files and try again"
                raise DataError(
                    f"data set {self.name!r}: cannot download or read {files}: {_line(error)}; {remedy}"
                ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        # CIFAR's pickled arrays use `align=0`, which NumPy 2.4 deprecates.
        warnings.filterwarnings("ignore", message="dtype\\(\\): align should be passed")
        yield


def _line(error: Exception) -> str:
    said = " ".join(str(error).split()).removesuffix(" You can use download=True to download it")
    return said or type(error).__name__


def _grey(kind: Any, split: str, **options: Any) -> Split:
    held = kind(train=split == "train", **options)
    return Split(held.data.numpy()[:, None], held.targets.numpy())


def _colour(kind: Any, split: str, **options: Any) -> Split:
    held = kind(train=split == "train", **options)
    return Split(held.data.transpose(0, 3, 1, 2), np.asarray(held.targets))


def _by_split(kind: Any, split: str, **options: Any) -> Split:
    held = kind(split=split, **options)
    return Split(held.data, held.labels)


def _declare(reader: _Reader, summary: str, info: DatasetInfo, count: int) -> None:
    register(Dataset(reader.name, summary, lambda source: info, reader.read, count=lambda source: count))


_declare(
    _Reader("mnist", "MNIST", "MNIST/raw", _grey),
    "handwritten digits: 60,000 + 10,000 images, 1x28x28, 10 classes",
    DatasetInfo((1, 28, 28), DIGITS, (0.1307,), (0.3081,)),
    60_000,
)
_declare(
    _Reader("fashion_mnist", "FashionMNIST", "FashionMNIST/raw", _grey),
    "clothes: 60,000 + 10,000 images, 1x28x28, 10 classes",
    DatasetInfo((1, 28, 28), CLOTHES, (0.2860,), (0.3530,)),
    60_000,
)
_declare(
    _Reader("cifar10", "CIFAR10", "cifar-10-batches-py", _colour),
    "small photographs: 50,000 + 10,000 images, 3x32x32, 10 classes",
    DatasetInfo((3, 32, 32), CIFAR10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    50_000,
)
_declare(
    _Reader("cifar100", "CIFAR100", "cifar-100-python", _colour),
    "small photographs: 50,000 + 10,000 images, 3x32x32, 100 classes",
    DatasetInfo((3, 32, 32), CIFAR100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    50_000,
)
_declare(
    _Reader("svhn", "SVHN", "{split}_32x32.mat", _by_split, needs="scipy"),
    "house numbers: 73,257 + 26,032 images, 3x32x32, 10 classes; needs scipy",
    DatasetInfo((3, 32, 32), DIGITS, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    73_257,
)
