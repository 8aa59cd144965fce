"""Data sets: one file each, discovered automatically.

A sweep file names a registered data set (`cifar10`), `image_folder`, `text_files`, or the user's own
`package.module:name`: a function that returns images and labels, one that returns texts and labels (`texts`), or a
`Dataset` for any task.
"""

from __future__ import annotations

from dataclasses import replace

from kdsweep.datasets.base import DATASETS, Dataset, DatasetInfo, Source, Split, register
from kdsweep.datasets.text_function import from_text_function, gives_texts, texts
from kdsweep.datasets.user_function import from_function
from kdsweep.errors import UnknownNameError, did_you_mean
from kdsweep.registry import is_user_object, load_user_object

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "Source", "Split", "get", "nameable", "register", "texts"]


def get(name: str) -> Dataset:
    """Look up a registered data set, or load the user's own.

    Args:
        name: A registered name or `package.module:name` of a function or a `Dataset`.

    Raises:
        UnknownNameError: If there is no such data set; the message suggests the closest name.
    """
    if is_user_object(name):
        found = load_user_object(name, "dataset")
        if isinstance(found, Dataset):
            return replace(found, name=name)
        return from_text_function(name) if gives_texts(found) else from_function(name)
    if name not in DATASETS:
        valid = f"{did_you_mean(name, nameable())}, or your own package.module:function"
        raise UnknownNameError(f"unknown {DATASETS.kind} {name!r}; {valid}")
    return DATASETS[name]


def nameable() -> list[str]:
    """The names of the registered data sets that a sweep file may have."""
    return [name for name in DATASETS if DATASETS[name].nameable]
