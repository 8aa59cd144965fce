"""The text classification task."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from kdsweep import datasets, models
from kdsweep.datasets import Dataset, DatasetInfo, Split
from kdsweep.datasets.labels import text_digests
from kdsweep.datasets.section import DatasetSpec, TextSection
from kdsweep.errors import DataError, InputError
from kdsweep.lazy import nn, torch
from kdsweep.models import InputSpec, Tapped, Taps
from kdsweep.seeds import digest_of
from kdsweep.storage.arrays import has_array, map_array
from kdsweep.storage.files import write_json
from kdsweep.storage.hashes import FileHashes
from kdsweep.storage.paths import Store
from kdsweep.tasks.arrays import ArrayTask, PreparedArrays, write_split
from kdsweep.tasks.base import Prepared, Samples, SplitName, register
from kdsweep.tasks.split import contents, is_stored, note_stored, train_and_val
from kdsweep.tasks.text import tokens
from kdsweep.tasks.text.batches import Texts


@dataclass(frozen=True)
class PreparedTexts(PreparedArrays):
    """The splits of one sweep as tokens, stored in files beside their tokenizer.

    Attributes:
        vocabulary: Number of tokens.
        padding: The token that fills up short texts.
    """

    vocabulary: int = 0
    padding: int = 0

    @property
    def input_spec(self) -> InputSpec:
        return self.task.described_input(self.described())

    def split(self, name: SplitName, device: torch.device) -> Samples:
        samples, labels = (map_array(self.root / f"{name}_{kind}.bin") for kind in ("samples", "labels"))
        return Texts.of(samples, labels, self.padding, device)

    def described(self) -> dict[str, Any]:
        return super().described() | {"vocabulary": self.vocabulary, "padding": self.padding}


@register
class TextTask(ArrayTask):
    """Texts as tokens, int64 [B, T], where T is the length of the longest text of a batch."""

    name = "text"
    noun = "texts"
    dtype = "int64"
    pipeline_tag = "text-classification"
    read_by = "tokenizer (dataset.text.tokenizer)"
    files = (tokens.FILE,)

    def faults(self, spec: DatasetSpec, dataset: Dataset, info: DatasetInfo) -> Iterator[tuple[str, str]]:
        """Reject settings for images, an unreadable tokenizer, and settings of a trained one beside a given one."""
        yield from self.image_faults(spec)
        if find_spec("tokenizers") is None:
            yield "name", tokens.NEEDED
            return
        if not spec.text.tokenizer:
            return
        for key in ("vocabulary", "lowercase"):
            default, found = TextSection.model_fields[key].default, getattr(spec.text, key)
            if found != default:
                yield "text", f"{key} is {found}, which has no effect with a tokenizer; accepted: leave it out"
        try:
            self.input_of(spec, info)
        except InputError as error:
            yield "text", str(error)

    def input_of(self, spec: DatasetSpec, info: DatasetInfo) -> InputSpec:
        """Length, vocabulary and padding as the sweep file says."""
        if not spec.text.tokenizer:  # one will be trained, whose first token is padding
            return InputSpec((spec.text.length,), self.dtype, spec.text.vocabulary, 0)
        known = tokens.Tokens(tokens.given(spec.text), spec.text.length)
        return InputSpec((spec.text.length,), self.dtype, known.vocabulary, known.padding)

    def described_input(self, described: Mapping[str, Any]) -> InputSpec:
        shape = tuple(described["input_shape"])
        return InputSpec(shape, self.dtype, described["vocabulary"], described["padding"])

    def tapped(self, model: nn.Module, taps: Taps, input_spec: InputSpec) -> Tapped:
        """Wrap a model so that the padding of a text does not appear in its hidden states."""
        return models.TappedTexts(model, taps, input_spec)

    def texts(self, data: Prepared, samples: Samples, index: torch.Tensor) -> list[str]:
        """The texts as the models see them: cut to their length, and normalised by the tokenizer."""
        shape: Any = data.input_spec.shape
        return tokens.Tokens(data.root / tokens.FILE, shape[0]).decode(samples.batch(index).cpu().numpy())

    def prepare(self, spec: DatasetSpec, seed: int, store: Store) -> PreparedTexts:
        """Split the texts, train a tokenizer on the training split if none is given, and store the tokens."""
        info = self._info(spec)
        read = {name: self._texts(spec, name) for name in info.splits}
        found = contents(read, lambda name: text_digests(*read[name]), spec.name, self.noun)
        binding = {name: digest for name, digest in found.items() if name != "test"}
        digest = digest_of({
            **spec.model_dump(include={"name", "val_fraction", "subset"}), "seed": seed, "task": self.name,
            "content": binding, "classes": info.class_names, "text": _identity(spec.text), "layout": 1,
        })[:16]  # fmt: skip
        root = store.data(digest)
        if not (root / "data.json").is_file():
            splits = train_and_val(spec, seed, info.splits, lambda name: read[name], self.noun)
            if spec.text.tokenizer:
                root.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(tokens.given(spec.text), root / tokens.FILE)
            else:
                tokens.train(splits[0].images, spec.text, root / tokens.FILE)
            known = tokens.Tokens(root / tokens.FILE, spec.text.length)
            for name, split in zip(("train", "val"), splits, strict=True):
                write_split(root, name, Split(known.encode(split.images), split.labels))
            data = PreparedTexts(
                root, self, digest, (spec.text.length,), info.class_names,
                vocabulary=known.vocabulary, padding=known.padding,
            )  # fmt: skip
            write_json(root / "data.json", data.described())
        return replace(self.load(root), contents=found)

    def prepare_test(self, spec: DatasetSpec, data: Any) -> bool:
        if "test" not in self._info(spec).splits:
            return False
        if not has_array(data.root / "test_labels.bin") or not is_stored(data.root, data.contents):
            known = tokens.Tokens(data.root / tokens.FILE, data.input_shape[0])
            split = self._texts(spec, "test")
            write_split(data.root, "test", Split(known.encode(split.images), split.labels))
            note_stored(data.root, data.contents)
        return True

    def load(self, root: Path) -> PreparedTexts:
        known = json.loads((root / "data.json").read_text())
        shape, names = tuple(known["input_shape"]), tuple(known["class_names"])
        vocabulary, padding = known["vocabulary"], known["padding"]
        return PreparedTexts(root, self, known["digest"], shape, names, vocabulary=vocabulary, padding=padding)

    def exported_split(self, spec: DatasetSpec, seed: int, split: str) -> Samples:
        """A split as tokens of the student's own tokenizer; see `spec_beside`."""
        known = tokens.Tokens(tokens.given(spec.text), spec.text.length)
        if split == "test":
            found = self._texts(spec, "test")
        else:
            both = train_and_val(spec, seed, self._info(spec).splits, lambda name: self._texts(spec, name), self.noun)
            found = both[0 if split == "train" else 1]
        encoded, labels = torch.from_numpy(known.encode(found.images)), torch.from_numpy(found.labels)
        return Texts.whole(encoded, labels, known.padding)

    def spec_beside(self, spec: DatasetSpec, folder: Path) -> DatasetSpec:
        """Read texts with the tokenizer in the folder."""
        used = {"tokenizer": str(folder / tokens.FILE)}
        return spec.model_copy(update={"text": spec.text.model_copy(update=used)})

    def exported(self, model: nn.Module, described: Mapping[str, Any]) -> nn.Module:
        """Add the class names."""
        from kdsweep.tasks.text.student import TextStudent

        return TextStudent(model, described["class_names"], described["input_shape"][0])

    def opened(self, student: nn.Module, folder: Path) -> nn.Module:
        """Give the student its tokenizer."""
        cast(Any, student).tokenizer = folder / tokens.FILE
        return student

    def exported_call(self, input_shape: tuple[int, ...]) -> str:
        return 'logits = student(student.encode(["a text"]))  # tokens [B, T], int64'

    def exported_note(self, described: Mapping[str, Any]) -> str:
        return (
            f"`student.encode(texts)` makes tokens with `{tokens.FILE}` (of Hugging Face's tokenizers), at most "
            f"{described['input_shape'][0]} of each text; token {described['padding']} fills up shorter texts. "
            "`student.classify(texts)` returns class names, and `student.class_names` names the logits."
        )

    def _texts(self, spec: DatasetSpec, name: str) -> Split:
        """Read a split.

        Raises:
            DataError: If there is no such split, or the user's own data set returns something else than texts.
        """
        info, where = self._info(spec), f"data set {spec.name!r}"
        if name not in info.splits:
            raise DataError(f"{where} has no split {name!r}; accepted: {', '.join(info.splits)}")
        split = datasets.get(spec.name).read(spec.source(), name)
        if not all(isinstance(text, str) for text in split.images):
            raise DataError(f"{where}, split {name!r}: found other samples than strings; accepted: texts")
        return split


def _identity(section: TextSection) -> dict[str, Any]:
    """What the tokens depend on besides the texts."""
    if not section.tokenizer:
        return section.model_dump(include={"vocabulary", "lowercase", "length"})
    return {"length": section.length, "tokenizer": FileHashes(None).of(tokens.given(section))}
