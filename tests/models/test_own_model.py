"""The worked example of docs/own-model.md, run exactly as printed, and its table of messages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from inputs import CODE, refused

from kdsweep import models
from kdsweep.config.load import load_spec
from kdsweep.errors import InputError
from kdsweep.tasks.image.splits import prepare, prepare_test
from kdsweep.worker.workbench import Workbench, provide_teacher

PAGE = Path(__file__).parents[2] / "docs" / "own-model.md"
CPU = torch.device("cpu")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working directory, with the page's two files."""
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))
    (tmp_path / "my_images.py").write_text(blocks["python"])
    (tmp_path / "own.yaml").write_text(blocks["yaml"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_images", raising=False)
    yield tmp_path
    sys.modules.pop("my_images", None)


def test_the_example_validates_and_trains(here):
    spec = load_spec(here / "own.yaml", {"storage": str(here / "runs")})
    sweep = spec.sweep_dir
    sweep.root.mkdir(parents=True)
    data = prepare(spec.dataset, spec.seed, sweep.store)
    assert (data.input_shape, data.class_names) == ((3, 16, 16), ("cross", "ring"))
    assert (data.count("train"), data.count("val")) == (210, 90)
    assert prepare_test(spec.dataset, data)
    card = provide_teacher(spec, sweep, data, CPU, lambda metrics: None)
    assert card.measured["val_accuracy"] > 0.9
    training = Workbench.of(spec, sweep, data, CPU).training(
        {"method": "at", "width": 0.5, "alpha": 0.5, "lr": 1e-2, "at.weight": 1.0}, 0, here / "state.safetensors"
    )
    losses = [training.run_epoch()["train_loss"] for _ in range(3)]
    assert losses[2] < losses[0]
    assert training.student.dropout.p == 0.1


def test_the_example_has_the_stage_maps_and_the_embedding_that_the_page_describes(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    for width, kernels in ((0.01, 1), (0.5, 4), (2, 16)):
        shown = models.describe("my_images:net", (3, 16, 16), 2, width).shown
        assert shown.logits.shape == (2, 2)
        assert shown.embedding.shape == (2, 2 * kernels)
        assert shown.features[-1].shape == (2, 2 * kernels, 8, 8)


CHANGES = {
    "raises an exception": ("    draw = np", "    1 / 0\n    draw = np"),
    "returns floats as images": ("return images, labels", "return images / 255, labels"),
    "returns fewer labels than images": ("return images, labels", "return images, labels[1:]"),
    "uses other class names in `test`": ('["cross", "ring"]', '["cross", "ring"][:: 1 if split == "train" else -1]'),
    "ignores its argument `split`": ("default_rng([1, len(split)])", "default_rng(1)"),
    "returns a model with the wrong number of logits": ("Linear(2 * kernels, num", "Linear(2 * kernels, 1 + num"),
    "returns something that is not a module": ("    return Net(", "    return lambda: Net("),
    "has no linear layer at its end": ("nn.Linear(2 * kernels", "Own(2 * kernels"),
    "is given an option that it does not take": ("", ""),
    "calls `sys.exit`": ("    return Net(", '    __import__("sys").exit(1)\n    return Net('),
}  # fmt: skip

OWN = """

class Own(nn.Module):
    def __init__(self, size, num_classes):
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(nn.Linear(size, num_classes).weight.detach()))

    def forward(self, embedding):
        return embedding @ self.weight.T
"""


def checked(path, overrides):
    """What `kdsweep run` does before it trains."""
    spec = load_spec(path, overrides)
    prepare(spec.dataset, spec.seed, spec.sweep_dir.store)


def messages():
    section = PAGE.read_text().partition("## What is refused")[2]
    rows = re.findall(r"^\| (.+?) \| `(.+)` \|$", section, flags=re.MULTILINE)
    return dict(rows)


def test_every_message_of_the_page_has_a_test():
    assert messages().keys() == CHANGES.keys()


@pytest.mark.parametrize("what", CHANGES)
def test_code_that_breaks_the_contract_is_refused_with_the_message_of_the_page(what, here):
    old, new = CHANGES[what]
    path = here / "my_images.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) + OWN if old else text)
    if what == "ignores its argument `split`":
        path.write_text(path.read_text().replace('"test": 100', '"test": 300'))
    overrides = {"student.options": {"depth": 3}} if what.startswith("is given an option") else {}
    with refused(CODE, InputError) as caught:
        checked(here / "own.yaml", {"storage": str(here / "runs"), **overrides})
    assert messages()[what] in str(caught.value)
    assert all(len(line) < 400 for line in str(caught.value).splitlines())
