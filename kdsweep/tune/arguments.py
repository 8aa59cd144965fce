"""The arguments of `kdsweep.sweep`: which kinds of values they take, and what faults of a sweep file call them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import NoneType
from typing import Any

from kdsweep.config.yaml import OVERRIDES
from kdsweep.errors import SpecError, did_you_mean
from kdsweep.methods import METHODS, Method
from kdsweep.methods.given import ACCEPTED as METHODS_ACCEPTED
from kdsweep.storage.places import Place
from kdsweep.words import kind_of

# The argument behind each key that a fault can be about.
ARGUMENTS = {
    "teacher.model": "teacher", "teacher.checkpoint": "teacher", "student.model": "student", "dataset.name": "train",
    "dataset.root": "train", "dataset.unlabelled": "unlabelled", "dataset.unlabelled.root": "unlabelled",
    "dataset.augment": "augment", "dataset.text.tokenizer": "tokenizer", "space.method": "methods",
    "train.epochs": "epochs", "search.trials": "trials", "confirm.top": "confirm",
}  # fmt: skip
OF_PLACE = ("name", "storage")  # keys that have to be known before a sweep file is checked, so no override sets them

# The types of the arguments that are read before there is a sweep file, and what is accepted, in words.
TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "methods": ((str, type, list, tuple), f"a list of {METHODS_ACCEPTED}"),
    "space": ((Mapping, NoneType), "a dict of settings, such as {'width': {'choice': [0.5, 1.0]}}"),
    "tokenizer": ((str, os.PathLike, NoneType), "the path of a tokenizer.json"),
    "augment": ((str, list, tuple), "a list of transforms, such as ['crop', 'flip']"),
    "storage": ((str, os.PathLike, Place), "a directory, or a URI such as s3://bucket/runs"),
    "overrides": ((Mapping, NoneType), OVERRIDES),
}  # fmt: skip


def check_types(given: Mapping[str, Any]) -> None:
    """Refuse arguments of a wrong type, and overrides of what has an argument of its own.

    Args:
        given: The arguments in `TYPES`, by name.

    Raises:
        SpecError: With one line per fault.
    """
    faults = [
        f"{name}: found {kind_of(given[name])}; accepted: {accepted}"
        for name, (types, accepted) in TYPES.items()
        if not isinstance(given[name], types)
    ]
    overrides = given["overrides"] if isinstance(given["overrides"], Mapping) else {}
    faults += [f"overrides: found {key!r}; accepted: the argument {key}" for key in OF_PLACE if key in overrides]
    if faults:
        raise SpecError(faults)


def named_space(space: Mapping[Any, Any], own: Mapping[object, str]) -> dict[str, Any]:
    """Return `space` with names in place of classes.

    Args:
        space: As given to `kdsweep.sweep`.
        own: The name of each class in `methods`, by the class and by what it is called.

    Raises:
        SpecError: If a key is neither text nor a class in `methods`; one line per key.
    """
    named = {_name(key, own): value for key, value in space.items()}
    classes = [key.__name__ for key in own if isinstance(key, type)]
    faults = [f"space: found {_found(key)}; {_accepted(key, classes)}" for key in named if not isinstance(key, str)]
    if faults:
        raise SpecError(faults)
    return named


def _name(key: Any, own: Mapping[object, str]) -> Any:
    if isinstance(key, type) and issubclass(key, Method) and key.name in METHODS and METHODS[key.name] is key:
        return key.name
    return own.get(key, key)


def _found(key: object) -> str:
    return f"{kind_of(key)}, which is not in methods" if isinstance(key, type) else f"the key {key!r}"


def _accepted(key: object, classes: list[str]) -> str:
    if isinstance(key, type) and classes:
        return did_you_mean(key.__name__, classes)
    return "accepted: names of settings, and classes that are in methods too"


@contextmanager
def named_by_arguments() -> Iterator[None]:
    """Let faults of a sweep file name the arguments of `sweep`, also those that a resumed sweep finds."""
    try:
        yield
    except SpecError as error:
        faults = [fault.removeprefix("--set ").replace("another --name", "another name") for fault in error.faults]
        raise SpecError(faults).renamed(ARGUMENTS) from error
