"""Numbers of a sweep file that must fit the number of training samples."""

from __future__ import annotations

from kdsweep import datasets, tasks
from kdsweep.config.spec import SweepSpec
from kdsweep.datasets import DatasetInfo
from kdsweep.tasks.split import trained_on
from kdsweep.words import count_of


def subset_fault(spec: SweepSpec, images: int) -> str:
    """Return what is wrong with `dataset.subset`, given the number of training images; empty if it fits."""
    if spec.dataset.subset <= images:
        return ""
    noun = tasks.of(spec.dataset).noun
    return f"found {spec.dataset.subset}; accepted: at most {images}, the number of training {noun}, or 0 for all"


def split_fault(spec: SweepSpec, info: DatasetInfo, count: int) -> str:
    """Return what is wrong with `dataset.val_fraction`; empty if it leaves samples to train on and to validate by.

    Args:
        spec: The spec.
        info: Describes its data set.
        count: Number of training samples; 0 if it is not known yet.
    """
    count = _used(spec, count)
    if not count or "val" in info.splits or 0 < (left := trained_on(spec.dataset, count)) < count:
        return ""
    if spec.dataset.subset * spec.dataset.val_fraction < 1 <= spec.dataset.subset:
        return ""  # reported as a fault of the subset
    there = f"{left:,} of {count:,} {tasks.of(spec.dataset).noun} to train on and {count - left:,} for validation"
    accepted = f"at least one of each, as with {0.1 if count > 4 else 0.5}"
    return f"found {spec.dataset.val_fraction}, which leaves {there}; accepted: {accepted}"


def batch_note(spec: SweepSpec, images: int) -> str:
    """Return a note if `train.batch_size` exceeds the number of images that are trained on; otherwise empty."""
    if spec.train.batch_size <= images:
        return ""
    samples = count_of(images, tasks.of(spec.dataset).noun.removesuffix("s"))
    there = f"there {'is' if images == 1 else 'are'} {samples} to train on"
    return f"train.batch_size is {spec.train.batch_size}, but {there}: one batch per epoch"


def images_line(spec: SweepSpec) -> str:
    """Return how many images students learn from; empty if all are labelled."""
    if not spec.label_free and spec.dataset.unlabelled is None:
        return ""
    labelled, unlabelled = training_images(spec)
    if spec.label_free:
        return f"trains on {labelled:,} images, none of them labelled"
    known = f"{labelled:,} labelled" if labelled else f"the labelled images of {spec.dataset.name}"
    return f"trains on {known} + {unlabelled:,} unlabelled images"


def training_images(spec: SweepSpec) -> tuple[int, int]:
    """Return how many samples of the data set are trained on, without those for validation, and how many unlabelled.

    The first is 0 if it is not known yet, the second counts those of `dataset.unlabelled`.
    """
    dataset = datasets.get(spec.dataset.name)
    info, count = dataset.describe(spec.dataset.source()), _used(spec, dataset.training_samples(spec.dataset.source()))
    folder = spec.dataset.unlabelled_images(info.input_shape)
    return count if "val" in info.splits else trained_on(spec.dataset, count), folder.count() if folder else 0


def _used(spec: SweepSpec, count: int) -> int:
    """Return how many of the training samples are used, including those for validation; 0 if it is not known yet."""
    return min(filter(None, (count, spec.dataset.subset)), default=0)
