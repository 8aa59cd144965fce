"""Reads texts of the running program once, and stores them for `datasets.stored`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdsweep.datasets.labels import class_names_in
from kdsweep.datasets.objects import StoredObjects, item_of, length_of
from kdsweep.datasets.stored import DESCRIPTION, STORED, texts_file
from kdsweep.errors import DataError
from kdsweep.seeds import digest_of
from kdsweep.storage.files import write_json
from kdsweep.words import count_of, kind_of

FEW = 4  # texts that are looked at before all are read
ACCEPTED = "pairs of a text and its class (a number from 0, or a word), or (texts, classes)"


def holds_texts(data: Any) -> bool:
    """Whether a data set holds texts, by its first sample."""
    try:
        first = data[0]
        return isinstance(first[0], str) if isinstance(first, tuple | list) and len(first) else False
    except Exception:  # whatever is wrong with it is told when it is read as images
        return False


def are_texts(data: Any) -> bool:
    """Whether a data set holds texts, as samples or as a pair of lists."""
    return _listed(data) or holds_texts(data)


def described(splits: Mapping[str, Any], folder: Path) -> StoredObjects:
    """Check the first texts and describe the data set as `store` would, with classes that are not known yet.

    Args:
        splits: As for `store`.
        folder: Where the description is written.

    Raises:
        DataError: As from `store`, for what the first texts show.
    """
    for split, data in splits.items():
        _read(split, data, FEW)
    return _written(folder, {}, (), splits)


def store(splits: Mapping[str, Any], folder: Path, tell: Callable[[int, int, str], None]) -> StoredObjects:
    """Read each split once and store it, unless the same texts are stored already.

    Args:
        splits: By split, a map-style data set of pairs of a text and a class, or a pair of a list of texts and a list
            of classes; `train` is required.
        folder: Directory of all stored data sets.
        tell: Receives how many texts of how many have been read, and what they are.

    Raises:
        DataError: If a sample is no such pair, or a class of another split is not in `train`.
    """
    read: dict[str, tuple[list[str], list[str]]] = {}
    done, total = 0, sum(_count(data) for data in splits.values())
    for split, data in splits.items():
        read[split] = _read(split, data)
        done += len(read[split][0])
        tell(done, total, "texts read")
    names = _names(read["train"][1])
    root = folder / digest_of({"texts": read, "classes": names})[:16]
    if (root / DESCRIPTION).is_file():
        return StoredObjects(STORED["text"], root)
    shutil.rmtree(root, ignore_errors=True)
    return _written(root, read, names, splits)


def _names(labels: list[str]) -> tuple[str, ...]:
    """Return the class names: words in the order of the alphabet, or a name for each number up to the largest."""
    found = class_names_in(labels, (), "train")
    if not all(name.isdecimal() for name in found):
        return found
    return tuple(map(str, range(int(found[-1]) + 1)))


def _written(
    root: Path, read: Mapping[str, tuple[list[str], list[str]]], names: tuple[str, ...], splits: Mapping[str, Any]
) -> StoredObjects:
    for split, (texts, labels) in read.items():
        write_json(root / texts_file(split), {"texts": texts, "labels": labels})
    write_json(root / DESCRIPTION, {"input_shape": [], "class_names": names, "splits": list(splits)})
    return StoredObjects(STORED["text"], root)


def _listed(data: Any) -> bool:
    """Whether a data set is a pair of lists."""
    return isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], list) and holds_texts([data[0]])


def _count(data: Any) -> int:
    return len(data[0]) if _listed(data) else len(data)


def _read(split: str, data: Any, most: int = 0) -> tuple[list[str], list[str]]:
    if _listed(data):
        if isinstance(data[1], type) or not hasattr(data[1], "__len__"):
            raise DataError(f"{split}: found {kind_of(data[1])} beside the texts; accepted: a list of their classes")
        if len(data[0]) != (classes := length_of(data[1], split)):
            found = f"{count_of(len(data[0]), 'text')} but {count_of(classes, 'class', 'classes')}"
            raise DataError(f"{split}: found {found}; accepted: one for each")
        data = list(zip(*(list(part[:most] if most else part) for part in data), strict=True))
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise DataError(f"{split}: found {kind_of(data)} without len() or [index]; accepted: {ACCEPTED}")
    if not length_of(data, split):
        raise DataError(f"{split}: found no texts; accepted: at least one")
    texts, labels = [], []
    for index in range(min(len(data), most or len(data))):
        text, label = _pair(split, data, index)
        texts.append(text)
        labels.append(label)
    return texts, labels


def _pair(split: str, data: Any, index: int) -> tuple[str, str]:
    where = f"{split}[{index}]"
    item = item_of(data, where, index)
    if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[0], str):
        raise DataError(f"{where}: found {kind_of(item)}; accepted: {ACCEPTED}")
    label = item[1].item() if getattr(item[1], "ndim", 1) == 0 and hasattr(item[1], "item") else item[1]
    if isinstance(label, bool) or not isinstance(label, int | str) or (isinstance(label, int) and label < 0):
        raise DataError(f"{where}: the class is {item[1]!r}; accepted: a number from 0, or a word")
    return item[0], str(label)
