"""Tokenizers of Hugging Face's tokenizers: read from a file, or trained on the training texts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.section import LEAST_TOKENS, TextSection
from kdsweep.errors import DataError, installing
from kdsweep.storage.fetched import local_copy

FILE = "tokenizer.json"
NEEDED = f"texts need tokenizers: {installing('text')}"
PADDING, START = "[PAD]", "[CLS]"
_PADDINGS = (PADDING, "<pad>", "<|pad|>", "<PAD>")
BATCH = 1024


class Tokens:
    """A tokenizer that cuts texts to a length.

    Args:
        path: A `tokenizer.json`.
        length: Number of tokens that are read of each text.

    Attributes:
        vocabulary: Number of tokens.
        padding: The token that fills up short texts.

    Raises:
        DataError: If the file cannot be read or has no padding token, or tokenizers is not installed.
    """

    def __init__(self, path: Path, length: int):
        _need_installed()
        from tokenizers import Tokenizer

        if not path.is_file():
            raise DataError(f"{path}: no such file; accepted: a {FILE} of Hugging Face's tokenizers")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain exceptions
            raise DataError(f"{path}: not a {FILE} of Hugging Face's tokenizers: {error}") from error
        self._length = length
        found = [self._tokenizer.token_to_id(name) for name in _PADDINGS]
        given = self._tokenizer.padding or {}
        paddings = [token for token in (given.get("pad_id"), *found) if token is not None]
        if not paddings:
            raise DataError(f"{path}: has no padding token; accepted: a tokenizer with {', '.join(_PADDINGS)}")
        self.padding = int(paddings[0])
        self.vocabulary = max(self.padding, *self._tokenizer.get_vocab().values()) + 1
        self._tokenizer.no_padding()
        try:
            self._tokenizer.enable_truncation(length)
        except Exception as error:  # fewer tokens than it adds to each text
            raise DataError(f"dataset.text.length: found {length}: {error}") from error

    def encode(self, texts: Sequence[str] | NDArray[Any]) -> NDArray[np.int32]:
        """Return tokens [N, length], filled up with padding."""
        found = np.full((len(texts), self._length), self.padding, np.int32)
        for start in range(0, len(texts), BATCH):
            for place, one in enumerate(self._tokenizer.encode_batch(list(texts[start : start + BATCH])), start):
                found[place, : len(one.ids)] = one.ids
        return found

    def decode(self, found: NDArray[Any]) -> list[str]:
        """Return the texts of tokens [N, T], without padding and other special tokens."""
        rows = [[int(token) for token in row if token != self.padding] for row in found]
        return [text.strip() for text in self._tokenizer.decode_batch(rows, skip_special_tokens=True)]


def given(section: TextSection) -> Path:
    """Return the local path of the tokenizer that a sweep file names.

    Raises:
        InputError: If its URI cannot be read.
    """
    assert section.tokenizer is not None
    return local_copy(section.tokenizer, "file")


def train(texts: NDArray[Any], section: TextSection, path: Path) -> None:
    """Train a byte-level BPE tokenizer and write it to a file; the same texts give the same tokenizer.

    Raises:
        DataError: If the texts do not have as many different tokens, or tokenizers is not installed.
    """
    _need_installed()
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if section.lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=section.vocabulary,
        special_tokens=[PADDING, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_batches(texts), trainer)
    start = tokenizer.token_to_id(START)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, start)])
    found = tokenizer.get_vocab_size()
    if found < section.vocabulary:
        raise DataError(
            f"dataset.text.vocabulary: found {section.vocabulary:,}, and the training texts have {found:,} tokens; "
            f"accepted: from {LEAST_TOKENS} to {found}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    tokenizer.save(str(partial))
    partial.replace(path)


def _batches(texts: NDArray[Any]) -> Iterator[list[str]]:
    for start in range(0, len(texts), BATCH):
        yield list(texts[start : start + BATCH])


def _need_installed() -> None:
    if find_spec("tokenizers") is None:
        raise DataError(NEEDED)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # without it, every later fork prints a warning
