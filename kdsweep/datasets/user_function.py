"""User-defined data sets: a function that a sweep file names as `package.module:function`.

    def flowers(source: kdsweep.datasets.Source, split: str):
        if split not in ("train", "test"):
            raise ValueError(split)
        return images, labels            # or images, labels, class_names

`images` are uint8 [N, C, H, W], [N, H, W, C] or [N, H, W], `labels` are integers [N]; both may be NumPy arrays or
tensors. Without class names, the classes are "0", "1", ... up to the largest label of `train`. The function raises
ValueError or KeyError for a split that it does not have.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split, checked, sample_digests
from kdsweep.errors import DataError, UnknownNameError
from kdsweep.registry import load_user_object
from kdsweep.words import count_of, kind_of

SPLITS = ("train", "val", "test")
MOST_CHANNELS = 4  # a longer last axis is not interpreted as channels
_LOG = logging.getLogger(__name__)


class _Answer(NamedTuple):
    """One split returned by the function; `class_names` is empty if it returned none."""

    split: Split
    class_names: tuple[str, ...]


class NoSplitError(DataError):
    """The function does not have this split."""


def from_function(name: str) -> Dataset:
    """Create a data set from the user's function `name`.

    The function is called once per source and split; its results are cached as long as the data set exists.

    Raises:
        UnknownNameError: If there is no such function.
    """
    function = load_user_object(name, "dataset")
    if not callable(function):
        raise UnknownNameError(f"dataset {name!r} is {kind_of(function)}; accepted: a function or a Dataset")

    @lru_cache(maxsize=len(SPLITS))
    def ask(source: Source, split: str) -> _Answer:
        where = f"data set {name!r}, split {split!r}"
        with explained(where):
            returned = function(source, split)
        return _answer(returned, where)

    def inspect(source: Source) -> DatasetInfo:
        train = ask(source, "train")
        class_names = train.class_names or tuple(map(str, range(int(train.split.labels.max()) + 1)))
        splits = other_splits(name, class_names, lambda split: ask(source, split).class_names)
        _, channels, height, width = train.split.images.shape
        return DatasetInfo((channels, height, width), class_names, splits=splits)

    def read(source: Source, split: str) -> Split:
        return ask(source, split).split

    def content(source: Source, split: str) -> list[str]:
        return sample_digests(*ask(source, split).split)

    def count(source: Source) -> int:
        return len(ask(source, "train").split.labels)

    return Dataset(name, "your own function", inspect, read, content=content, count=count)


def other_splits(name: str, class_names: tuple[str, ...], named: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    """Return the splits that a user's function has.

    Args:
        name: Name of the data set.
        class_names: Those of the training split.
        named: Returns the class names of another split; empty if they are not told.

    Raises:
        DataError: If a split has other classes.
    """
    splits = ["train"]
    for split in SPLITS[1:]:
        try:
            other = named(split)
        except NoSplitError as error:
            _LOG.info("%s: treated as a missing split", error)
            continue
        if other and other != class_names:
            found = f"class names {reprlib.repr(other)}"
            accepted = f"accepted: those of train, {reprlib.repr(class_names)}"
            raise DataError(f"data set {name!r}, split {split!r}: {found}; {accepted}")
        splits.append(split)
    return tuple(splits)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn whatever a user's function raises into one line.

    Raises:
        NoSplitError: For ValueError and KeyError: the function does not have this split.
        DataError: For anything else.
    """
    try:
        yield
    except DataError:
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        kind = NoSplitError if isinstance(error, (ValueError, KeyError)) else DataError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise kind(f"{where}: {reason}") from error


def _answer(returned: Any, where: str) -> _Answer:
    accepted = "accepted: (images, labels) or (images, labels, class_names)"
    if not isinstance(returned, (tuple, list)):
        raise DataError(f"{where}: returned {kind_of(returned)}; {accepted}")
    if len(returned) not in (2, 3):
        raise DataError(f"{where}: returned {count_of(len(returned), 'value')}; {accepted}")
    images, labels = (_array(value, where) for value in returned[:2])
    if images.dtype.kind in "OU":
        raise DataError(f"{where}: images are {images.dtype}; texts need the decorator kdsweep.datasets.texts")
    split = checked((_channels_first(images), labels), where)
    return _Answer(split, class_names_of(returned[2], where) if len(returned) == 3 else ())


def _array(value: Any, where: str) -> NDArray[Any]:
    if hasattr(value, "detach"):  # a tensor; isinstance would import torch
        value = value.detach().cpu().numpy()
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"{where}: cannot convert {kind_of(value)} to an array: {error}") from error


def _channels_first(images: NDArray[Any]) -> NDArray[Any]:
    """Convert images to [N, C, H, W]; a short last axis is the channels unless the second axis is short too."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] <= MOST_CHANNELS < images.shape[1]:
        return images.transpose(0, 3, 1, 2)
    return images


def class_names_of(names: Any, where: str) -> tuple[str, ...]:
    """Check the class names that a function returned.

    Raises:
        DataError: If they are not distinct strings.
    """
    listed = tuple(names) if isinstance(names, (tuple, list)) else ()
    if not listed or not all(isinstance(name, str) for name in listed) or len(set(listed)) < len(listed):
        found = reprlib.repr(names)
        raise DataError(f"{where}: class names are {found}; accepted: a list of distinct strings")
    return listed
