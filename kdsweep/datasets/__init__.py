"""Data sets: one file each, found without editing a list.

A sweep names one of the registry (`cifar10`), `image_folder` or the user's own `package.module:function`.
"""

from __future__ import annotations

from kdsweep.datasets.base import DATASETS, Dataset, DatasetInfo, Source, Split

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "Source", "Split"]
