"""Texts with labels that are words or numbers: their classes, the split as arrays, and digests of the samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.base import Split
from kdsweep.errors import DataError

SHOWN = 5


def class_names_in(labels: Sequence[str], asked: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Return the classes of the training labels, whole numbers by size and words by the alphabet.

    Args:
        labels: The labels of the training split.
        asked: The classes in the wanted order (`dataset.text.classes`); empty sorts them.
        where: Name of the data set in error messages.

    Raises:
        DataError: If there are fewer than two classes, or other ones than asked for.
    """
    found = set(labels)
    if asked:
        if set(asked) != found or len(set(asked)) < len(asked):
            told = f"dataset.text.classes is {shown(asked)}, and the labels are {shown(sorted(found))}"
            raise DataError(f"{where}: {told}; accepted: each label once")
        return asked
    if len(found) < 2:
        raise DataError(f"{where}: found {shown(sorted(found)) or 'no labels'}; accepted: at least 2 different labels")
    numbers = all(label.lstrip("-").isdecimal() for label in found)
    return tuple(sorted(found, key=(lambda label: (int(label), label)) if numbers else None))


def split_of(texts: Sequence[str], labels: Sequence[str], class_names: tuple[str, ...], where: str) -> Split:
    """Return texts and labels as arrays.

    Raises:
        DataError: If there are none, or one has a label that the training split does not have.
    """
    if not len(texts):
        raise DataError(f"{where}: no texts; accepted: at least one")
    places = {name: place for place, name in enumerate(class_names)}
    unknown = sorted(set(labels) - places.keys())
    if unknown:
        raise DataError(f"{where}: found the label {unknown[0]!r}; accepted: those of train, {shown(class_names)}")
    held = np.empty(len(texts), object)
    held[:] = texts
    return Split(held, np.array([places[label] for label in labels], np.int64))


def text_digests(texts: NDArray[Any], labels: NDArray[np.int64]) -> list[str]:
    """Return a digest of each text with its label, for `Dataset.content`."""
    return [
        hashlib.sha256(f"{int(label)} {text}".encode(errors="surrogatepass")).hexdigest()[:32]
        for text, label in zip(texts, labels, strict=True)
    ]


def shown(names: Sequence[str]) -> str:
    """The first names of a list, for an error message."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
