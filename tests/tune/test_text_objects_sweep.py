"""A sweep over texts and modules of the running program."""

from __future__ import annotations

import corpus
import numpy as np
import pytest
import torch
from markupsafe import escape
from torch import nn
from torch.nn import functional as F

import kdsweep
from kdsweep.datasets.section import TextSection
from kdsweep.errors import InputError
from kdsweep.results.predictor import MOST_PICTURES
from kdsweep.tasks.text import tokens

LENGTH = 24
pytestmark = pytest.mark.slow


class Bag(nn.Module):
    """The mean of the embeddings of a text's tokens, then two layers."""

    def __init__(self, size, classes, vocabulary, padding):
        super().__init__()
        self.padding = padding
        self.embedding = nn.Embedding(vocabulary, size)
        self.hidden = nn.Linear(size, size)
        self.head = nn.Linear(size, classes)

    def forward(self, text):
        there = (text != self.padding).float()[..., None]
        mean = (self.embedding(text) * there).sum(1) / there.sum(1).clamp(min=1)
        return self.head(torch.relu(self.hidden(mean)))


@pytest.fixture(scope="module", name="given")
def tokenizer_and_teacher(tmp_path_factory):
    """A tokenizer, and a teacher that was trained with it."""
    path = tmp_path_factory.mktemp("teacher") / "tokenizer.json"
    texts, labels = corpus.sentences("train")
    tokens.train(np.array(texts, object), TextSection(vocabulary=1000), path)
    known = tokens.Tokens(path, LENGTH)
    encoded = torch.from_numpy(known.encode(texts)).long()
    classes = torch.tensor([corpus.LANGUAGES.index(label) for label in labels])
    torch.manual_seed(0)
    teacher = Bag(64, 10, known.vocabulary, known.padding)
    optimizer = torch.optim.Adam(teacher.parameters(), 0.02)
    for _ in range(3):
        for index in torch.randperm(len(texts)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(teacher(encoded[index]), classes[index]).backward()
            optimizer.step()
    return path, teacher


def small(width, num_classes, vocabulary, padding):
    return Bag(int(64 * width), num_classes, vocabulary, padding)


def called(given, storage, **changes):
    path, teacher = given
    arguments = {
        "teacher": teacher, "train": corpus.sentences("train"), "test": corpus.sentences("test"), "tokenizer": path,
        "student": small,
        "methods": ["kd", "none"], "space": {"width": 0.25, "temperature": 2}, "epochs": 3, "trials": 2, "confirm": 1,
        "storage": storage, "name": "texts", "progress": False,
        "overrides": {"dataset.text.length": LENGTH, "train.precision": "float32", "scheduler.name": "none",
                      "search.sampler": "random", "confirm.seeds": 1, "dataset.text.classes": list(corpus.LANGUAGES)},
    }  # fmt: skip
    return kdsweep.sweep(**arguments | changes)


def test_texts_need_the_teachers_tokenizer_and_nothing_for_images(given, tmp_path):
    for changes, fault in (
        ({"tokenizer": None}, "tokenizer: found none, and the samples are texts; accepted: the tokenizer.json"),
        ({"tokenizer": tmp_path / "none.json"}, "dataset.text: .*none.json: no such file"),
        ({"augment": ["flip"]}, "augment: the samples of train are not 8-bit images"),
        ({"train": [(torch.zeros(1, 4, 4), 0)], "test": None}, "tokenizer: found one, but the samples are not texts"),
        ({"methods": ["kdd"]}, "methods: unknown method 'kdd'"),
    ):
        with pytest.raises(InputError, match=fault):
            called(given, tmp_path, **changes)


def test_texts_of_a_program_are_swept_exported_and_classified(local_ray, given, tmp_path):
    results = called(given, tmp_path)
    assert (results.trials["state"] == "COMPLETE").all()
    assert results.teacher["val_accuracy"] > 0.6  # it sees the tokens that it was trained with
    assert results.confirmed["test_accuracy"].notna().all()
    texts, labels = corpus.sentences("test")
    page = (results.path / "report.html").read_text()
    shown = results.predictions["image"].dropna()
    assert 0 < len(shown) <= MOST_PICTURES
    for place, words in shown.items():
        assert texts[place].lower().startswith(words.decode()[:12])
        assert f"<blockquote>{escape(words.decode())}</blockquote>" in page
    (folder,) = results.export(tmp_path / "students", top=1)
    student = kdsweep.load_student(folder)
    right = sum(said == label for said, label in zip(student.classify(texts), labels, strict=True)) / len(texts)
    assert right == pytest.approx(results.trials["val_accuracy"].max(), abs=0.2)
    assert right > 0.2
