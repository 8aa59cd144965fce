"""Writes a first sweep file for texts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsweep.config.draft import FEW, OPTIONS, Draft, beside, quoted
from kdsweep.datasets import Source
from kdsweep.datasets.section import LEAST_TOKENS, TextSection
from kdsweep.errors import InputError
from kdsweep.tasks.text.tokens import FILE, train

OF_TEXTS = {"--images": "--texts"}
LENGTHS = (32, 64, 128, 256)  # of which the first is taken that holds nine of ten texts
TOKEN = 4  # characters of a token, about
VOCABULARIES = (8000, 2000, 1000, 500, 300)  # of which the largest is taken that the texts give


@dataclass(frozen=True)
class TextDraft(Draft):
    """What a sweep file for texts is written from. `images` is a file, or a folder of files.

    Attributes:
        columns: Names of the columns with the texts and with the labels.
    """

    columns: tuple[str, str] = ("text", "label")

    @property
    def options(self) -> Mapping[str, str]:
        """The option behind each key that a fault can be about."""
        return {
            **{key: OF_TEXTS.get(option, option) for key, option in OPTIONS.items()},
            "dataset.text": "--teacher",
            "dataset.text.vocabulary": "--texts",
        }

    def _dataset(self) -> str:
        column, label = self.columns
        lines = [
            "dataset:",
            "  name: text_files",
            f"  root: {quoted(self.images)}{beside('train.jsonl, .csv, .tsv or .parquet; perhaps val and test')}",
            f"  val_fraction: 0.1{beside('of the training texts, if there is no validation split')}",
            "  text:",
            f"    length: {self._length}{beside('tokens that are read of each text')}",
        ]
        if self.columns != ("text", "label"):
            lines += [f"    text_column: {quoted(column)}", f"    label_column: {quoted(label)}"]
        if self._tokenizer:
            lines += [f"    tokenizer: {quoted(self._tokenizer)}{beside('the one of the teacher')}"]
        else:
            lines += [f"    vocabulary: {self._vocabulary}{beside('tokens of the tokenizer that is trained')}"]
        return "\n".join(lines)

    def _teacher(self) -> str:
        if self.teacher or self.teacher_model != "bilstm":
            return super()._teacher()
        return super()._teacher().replace("\n", f"\n  width: 2{beside('of 64 channels')}\n", 1)

    @property
    def _name(self) -> str:
        return "text_files"

    @property
    def _source(self) -> Source:
        return Source(Path(self.images).expanduser().absolute(), columns=self.columns)

    @property
    def _tokenizer(self) -> str:
        """The tokenizer beside the teacher's weights; empty if there is none."""
        if not self.teacher:
            return ""
        place = Path(self.teacher)
        path = (place if place.is_dir() else place.parent) / FILE
        return str(path) if path.is_file() else ""

    @cached_property
    def _texts(self) -> NDArray[Any]:
        """The training texts; none if they cannot be read, which is reported when the text is checked."""
        try:
            return self._folder.read(self._source, "train").images
        except InputError:
            return np.empty(0, object)

    @property
    def _length(self) -> int:
        sizes = sorted(map(len, self._texts))
        most = sizes[len(sizes) * 9 // 10] // TOKEN if sizes else 0
        return next((length for length in LENGTHS if length >= most), LENGTHS[-1])

    @property
    def _vocabulary(self) -> int:
        trained = self._texts[: len(self._texts) * 4 // 5]  # a part is held out for validation
        for tokens in VOCABULARIES if len(trained) else ():
            with suppress(InputError), TemporaryDirectory(prefix="kdsweep-") as folder:
                train(trained, TextSection(vocabulary=tokens), Path(folder) / FILE)
                return tokens
        return LEAST_TOKENS

    @property
    def _batch(self) -> int:
        return 64 if len(self._texts) >= FEW else 16
