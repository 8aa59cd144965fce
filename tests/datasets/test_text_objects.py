"""Texts of a running program."""

from __future__ import annotations

import json

import pytest
from inputs import DATA, refused

from kdsweep.datasets import DATASETS, Source, text_objects
from kdsweep.errors import DataError

PAIRS = [("well done", 2), ("too late", 0), ("well done again", 2), ("so so", 0)]


def silent(done, total, text):
    pass


def stored(folder, train, **splits):
    return text_objects.store({"train": train} | splits, folder, silent)


def test_pairs_and_lists_of_texts_are_the_same_data_set(tmp_path):
    told = []
    first = text_objects.store({"train": PAIRS, "test": PAIRS[:2]}, tmp_path, lambda *args: told.append(args))
    assert told == [(4, 6, "texts read"), (6, 6, "texts read")]
    lists = ([text for text, _ in PAIRS], [label for _, label in PAIRS])
    assert text_objects.are_texts(lists)
    assert stored(tmp_path, lists, test=PAIRS[:2]) == first
    source, found = Source(first.root), DATASETS[first.name]
    assert (found.task, found.describe(source).class_names) == ("text", ("0", "1", "2"))  # also those without a text
    split = found.read(source, "train")
    assert (split.images.tolist(), split.labels.tolist()) == (lists[0], [2, 0, 2, 0])
    assert found.describe(source).splits == ("train", "test")


def test_words_are_classes_in_the_order_asked_for(tmp_path):
    data = stored(tmp_path, [("a text", "good"), ("another", "bad")])
    found = DATASETS[data.name]
    assert found.describe(Source(data.root)).class_names == ("bad", "good")
    asked = Source(data.root, classes=("good", "bad"))
    assert found.read(asked, "train").labels.tolist() == [0, 1]
    with refused(DATA, DataError, match="found good, and the classes are bad, good; accepted: the same in any order"):
        found.describe(Source(data.root, classes=("good",)))


def test_the_first_texts_describe_a_data_set(tmp_path):
    class Counting(list):
        read = 0

        def __getitem__(self, index):
            self.read += 1
            return super().__getitem__(index)

    many = Counting(PAIRS * 50)
    text_objects.described({"train": many}, tmp_path)
    assert many.read <= text_objects.FEW
    assert json.loads((tmp_path / "dataset.json").read_text())["input_shape"] == []


@pytest.mark.parametrize(("train", "fault"), [
    ([("a", 0), 3], r"train\[1\]: found an int; accepted: pairs of a text and its class"),
    ([("a", 0), ("b", -1)], r"train\[1\]: the class is -1; accepted: a number from 0, or a word"),
    ([("a", 0), ("b", 0.5)], r"train\[1\]: the class is 0.5"),
    ([("a", 0), ("b", 0)], "train: found '0'; accepted: at least 2 different labels"),
    ((["a", "b"], [0]), "train: found 2 texts but 1 class; accepted: one for each"),
    ([], "train: found no texts"),
    (7, "train: found an int without"),
])  # fmt: skip
def test_wrong_texts_are_told_in_one_line(tmp_path, train, fault):
    with refused(DATA, DataError, match=fault):
        text_objects.store({"train": train}, tmp_path, silent) if train != 7 else text_objects.described(
            {"train": train}, tmp_path
        )
    assert not text_objects.are_texts([(1, 2)])
