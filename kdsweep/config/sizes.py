"""Numbers of a sweep file that must fit the number of training images."""

from __future__ import annotations

from kdsweep import datasets
from kdsweep.config.spec import SweepSpec
from kdsweep.datasets import Source


def training_files(spec: SweepSpec, source: Source) -> int | None:
    """Return the number of training images if they are separate files; other data sets have to be read first."""
    dataset = datasets.get(spec.dataset.name)
    return len(dataset.files(source, "train").labels) if dataset.list_files else None


def subset_fault(spec: SweepSpec, images: int) -> str:
    """Return what is wrong with `dataset.subset`, given the number of training images; empty if it fits."""
    if spec.dataset.subset <= images:
        return ""
    return f"found {spec.dataset.subset}; accepted: at most {images}, the number of training images, or 0 for all"


def batch_note(spec: SweepSpec, images: int) -> str:
    """Return a note if `train.batch_size` exceeds the number of images that are trained on; otherwise empty."""
    if spec.train.batch_size <= images:
        return ""
    return (
        f"train.batch_size is {spec.train.batch_size}, but there are {images} images to train on: one batch per epoch"
    )
