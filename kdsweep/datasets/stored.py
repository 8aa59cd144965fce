"""Data sets that kdsweep.sweep read from Python objects and stored as array files."""

from __future__ import annotations

import json

from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split, register, sample_digests
from kdsweep.errors import DataError
from kdsweep.storage.arrays import read_array

DESCRIPTION = "dataset.json"


def _inspect(source: Source) -> DatasetInfo:
    path = source.root / DESCRIPTION
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{source.root}: no data set of kdsweep.sweep is stored there; pass the data set to kdsweep.sweep again"
        ) from error
    return DatasetInfo(tuple(known["input_shape"]), tuple(known["class_names"]), splits=tuple(known["splits"]))


def _read(source: Source, split: str) -> Split:
    return Split(*(read_array(source.root / f"{split}_{kind}.bin") for kind in ("samples", "labels")))


def _content(source: Source, split: str) -> list[str]:
    return sample_digests(*_read(source, split))


# The data set for each task whose samples a Python data set can hold.
STORED = {"image": "stored_images", "tensors": "stored_tensors", "integers": "stored_integers"}
for _task, _name in STORED.items():
    _what = _name.removeprefix("stored_")
    register(Dataset(_name, f"{_what} of a Python data set, stored by kdsweep.sweep", _inspect, _read,
                     content=_content, task=_task))  # fmt: skip
