"""Numbers of a sweep file that must fit the number of training images."""

from __future__ import annotations

from kdsweep import datasets
from kdsweep.config.fitting import dataset_info, source_of
from kdsweep.config.spec import SweepSpec
from kdsweep.datasets import Source
from kdsweep.words import count_of


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
    there = f"{'is' if images == 1 else 'are'} {count_of(images, 'image')}"
    return f"train.batch_size is {spec.train.batch_size}, but there {there} to train on: one batch per epoch"


def images_line(spec: SweepSpec) -> str:
    """Return how many images students learn from; empty if all are labelled."""
    info = dataset_info(spec)
    if spec.label_free:
        return f"trains on {labelled_images(spec):,} images, none of them labelled"
    folder = spec.dataset.unlabelled_images(info.input_shape) if spec.dataset.unlabelled else None
    if folder is None:
        return ""
    labelled = labelled_images(spec)
    known = f"{labelled:,} labelled" if labelled else f"the labelled images of {spec.dataset.name}"
    return f"trains on {known} + {folder.count():,} unlabelled images"


def labelled_images(spec: SweepSpec) -> int:
    """Return the number of labelled training images, without those for validation; 0 if it is not known yet."""
    known = spec.dataset.subset or training_files(spec, source_of(spec)) or 0
    return known if "val" in dataset_info(spec).splits else round(known * (1 - spec.dataset.val_fraction))


def training_images(spec: SweepSpec) -> int:
    """Return the number of all training images; 0 if it is not known yet."""
    labelled = labelled_images(spec)
    if not labelled or spec.dataset.unlabelled is None:
        return labelled
    folder = spec.dataset.unlabelled_images(dataset_info(spec).input_shape)
    return labelled + (folder.count() if folder else 0)
