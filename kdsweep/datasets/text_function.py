"""User-defined data sets of texts: a function that a sweep file names as `package.module:function`.

    @kdsweep.datasets.texts
    def messages(source: kdsweep.datasets.Source, split: str):
        if split not in ("train", "test"):
            raise ValueError(split)
        return texts, labels            # or texts, labels, class_names

`texts` are strings; `labels` are words or, with class names, their numbers. The function raises ValueError or KeyError
for a split that it does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split
from kdsweep.datasets.labels import class_names_in, split_of, text_digests
from kdsweep.datasets.user_function import SPLITS, class_names_of, explained, other_splits
from kdsweep.errors import DataError
from kdsweep.registry import load_user_object
from kdsweep.words import count_of, kind_of

Function = TypeVar("Function", bound=Callable[..., Any])
ACCEPTED = "accepted: (texts, labels) or (texts, labels, class_names)"


class _Answer(NamedTuple):
    texts: list[str]
    labels: list[str]
    class_names: tuple[str, ...]


def texts(function: Function) -> Function:
    """Mark a function as a data set of texts; a decorator."""
    function.kdsweep_texts = True  # type: ignore[attr-defined]
    return function


def gives_texts(found: object) -> bool:
    """Whether a user's object is a function that `texts` has marked."""
    return getattr(found, "kdsweep_texts", False) is True


def from_text_function(name: str) -> Dataset:
    """Create a data set from the user's function `name`, which is called once per source and split."""
    function = load_user_object(name, "dataset")

    @lru_cache(maxsize=len(SPLITS))
    def ask(source: Source, split: str) -> _Answer:
        where = f"data set {name!r}, split {split!r}"
        with explained(where):
            returned = function(source, split)
        return _answer(returned, where)

    def inspect(source: Source) -> DatasetInfo:
        train = ask(source, "train")
        asked = source.classes or train.class_names
        class_names = class_names_in(train.labels, asked, f"data set {name!r}")
        return DatasetInfo(
            (), class_names, splits=other_splits(name, asked, lambda split: ask(source, split).class_names)
        )

    def read(source: Source, split: str) -> Split:
        answer = ask(source, split)
        where = f"data set {name!r}, split {split!r}"
        return split_of(answer.texts, answer.labels, inspect(source).class_names, where)

    def content(source: Source, split: str) -> list[str]:
        return text_digests(*read(source, split))

    def count(source: Source) -> int:
        return len(ask(source, "train").labels)

    return Dataset(name, "your own function", inspect, read, content=content, count=count, task="text")


def _answer(returned: Any, where: str) -> _Answer:
    if not isinstance(returned, tuple | list) or len(returned) not in (2, 3):
        found = count_of(len(returned), "value") if isinstance(returned, tuple | list) else kind_of(returned)
        raise DataError(f"{where}: returned {found}; {ACCEPTED}")
    try:
        listed, labels = (list(part) for part in returned[:2])
    except TypeError as error:
        raise DataError(f"{where}: {error}; {ACCEPTED}") from error
    if len(listed) != len(labels):
        found = f"{count_of(len(listed), 'text')} but {count_of(len(labels), 'label')}"
        raise DataError(f"{where}: {found}; accepted: one label per text")
    names = class_names_of(returned[2], where) if len(returned) == 3 else ()
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            raise DataError(f"{where}: text {place} is {kind_of(text)}; accepted: strings")
    return _Answer(listed, [_label(label, names, where) for label in labels], names)


def _label(label: Any, names: tuple[str, ...], where: str) -> str:
    """Return the name of a label, which may be its number."""
    number = label.item() if hasattr(label, "item") else label
    if isinstance(number, str):
        return number
    if isinstance(number, bool) or not isinstance(number, int) or (names and not 0 <= number < len(names)):
        accepted = f"0 to {len(names) - 1}" if names else "words or whole numbers"
        raise DataError(f"{where}: found the label {label!r}; accepted: {accepted}")
    return names[number] if names else str(number)
