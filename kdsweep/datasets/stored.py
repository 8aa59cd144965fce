"""Data sets that kdsweep.sweep read from Python objects and stored as array files, texts as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split, register, sample_digests
from kdsweep.datasets.labels import split_of, text_digests
from kdsweep.errors import DataError
from kdsweep.storage.arrays import array_shape, has_array, read_array

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


def _count(source: Source) -> int:
    labels = source.root / "train_labels.bin"
    return array_shape(labels)[0] if has_array(labels) else 0  # stored after the first checks


def texts_file(split: str) -> str:
    """Name of the file with the texts and classes of a split."""
    return f"{split}_texts.json"


def _inspect_texts(source: Source) -> DatasetInfo:
    info = _inspect(source)  # without classes before all texts are read
    if source.classes and info.class_names and set(source.classes) != set(info.class_names):
        found = f"{', '.join(source.classes)}, and the classes are {', '.join(info.class_names)}"
        raise DataError(f"dataset.text.classes: found {found}; accepted: the same in any order")
    return replace(info, class_names=source.classes or info.class_names or ("0", "1"))


def _read_texts(source: Source, split: str) -> Split:
    known = json.loads((source.root / texts_file(split)).read_text(encoding="utf-8"))
    return split_of(known["texts"], known["labels"], _inspect_texts(source).class_names, split)


def _content_of_texts(source: Source, split: str) -> list[str]:
    return text_digests(*_read_texts(source, split))


def _count_of_texts(source: Source) -> int:
    path = source.root / texts_file("train")
    return len(json.loads(path.read_text(encoding="utf-8"))["labels"]) if path.is_file() else 0


# The data set for each task whose samples a Python data set can hold.
STORED = {
    "image": "stored_images", "tensors": "stored_tensors", "integers": "stored_integers", "text": "stored_texts"
}  # fmt: skip
for _task, _name in STORED.items():
    _summary = f"{_name.removeprefix('stored_')} of a Python data set, stored by kdsweep.sweep"
    _inspected, _reads, _digests, _counts = (
        (_inspect_texts, _read_texts, _content_of_texts, _count_of_texts)
        if _task == "text"
        else (_inspect, _read, _content, _count)
    )
    register(Dataset(_name, _summary, _inspected, _reads, content=_digests, count=_counts, task=_task, nameable=False))
