"""Data sets: one file each, discovered automatically.

A sweep names a built-in data set (`cifar10`), `image_folder` or a user-defined `package.module:function`.
"""

from __future__ import annotations

from kdsweep.datasets.base import DATASETS, Dataset, DatasetInfo, Source, Split, register
from kdsweep.datasets.user_function import from_function
from kdsweep.errors import UnknownNameError
from kdsweep.registry import is_user_object

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "Source", "Split", "get", "register"]


def get(name: str) -> Dataset:
    """Return a registered data set, or one defined by the user's function.

    Args:
        name: A registered name or `package.module:function`.

    Raises:
        UnknownNameError: If there is no such data set; the message suggests the closest name.
    """
    if is_user_object(name):
        return from_function(name)
    try:
        return DATASETS[name]
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}, or your own package.module:function") from None
