"""Checks of the files of a data set."""

from __future__ import annotations

from collections.abc import Iterator

from kdsweep.config.fitting import source_of
from kdsweep.config.sizes import split_fault, subset_fault
from kdsweep.config.spec import SweepSpec
from kdsweep.config.yaml import Keys
from kdsweep.datasets import DATASETS, Dataset, DatasetInfo
from kdsweep.datasets.images import further_files
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import InputError
from kdsweep.registry import is_user_object
from kdsweep.storage.places import Place

MOST_FILES = 20  # unreadable image files that are listed


def streamed_faults(section: DatasetSpec) -> Iterator[tuple[Keys, str]]:
    """Yield what cannot be combined with images that are fetched one by one, by keys of `dataset`."""
    remote = Place.of(section.root).is_remote
    if section.stream and section.unlabelled is not None and Place.of(section.unlabelled.root).is_remote:
        accepted = "accepted with stream: a directory that every machine reaches"
        yield ("unlabelled", "root"), f"found {section.unlabelled.root!r}; {accepted}"
    if not section.stream or not remote:
        return
    if section.skip_unreadable:
        accepted = f"false, because images streamed from {section.root} are not read in advance"
        yield ("skip_unreadable",), f"found true; accepted: {accepted}"
    if is_user_object(section.name) or (section.name in DATASETS and not DATASETS[section.name].from_store):
        yield ("stream",), f"found true with {section.name!r} at {section.root}; accepted: false, or image_folder"


def file_faults(spec: SweepSpec, dataset: Dataset, info: DatasetInfo) -> Iterator[tuple[str, str]]:
    """Yield the image files of every split that cannot be read, and numbers that do not fit that of the samples.

    Each is a key of `dataset` and a message.
    """
    try:
        unreadable, count = dataset.unreadable(source_of(spec)), dataset.training_samples(source_of(spec))
    except InputError as error:
        yield "root", str(error)
        return
    if fault := split_fault(spec, info, count):
        yield "val_fraction", fault
    if spec.dataset.skip_unreadable:
        return
    lines = [line for lines in unreadable.values() for line in lines]
    if dataset.list_files and not lines and (message := subset_fault(spec, count)):
        yield "subset", message
    for line in lines[:MOST_FILES]:
        yield "root", line
    if len(lines) > MOST_FILES:
        yield "root", further_files(len(lines) - MOST_FILES)
