"""A sweep goes on only with the data and the code that it began with. Nothing here starts Ray."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys

import numpy as np
import pytest
from inputs import SWEEP, refused
from PIL import Image

from kdsweep.config.spec import SweepSpec
from kdsweep.errors import DataError, SweepDirError
from kdsweep.lazy import torch
from kdsweep.tasks import of
from kdsweep.teacher.build import teacher_digest
from kdsweep.tune.driver import resume
from kdsweep.tune.origins import record_code, record_data

FUNCTION = """
import numpy as np

SHIFT = {"train": 0, "val": 0, "test": 0}

def read(source, split):
    draw = np.random.default_rng(["train", "val", "test"].index(split))
    images = draw.integers(0, 256, (20, 1, 6, 6), np.uint8)
    return images, (np.arange(20) + SHIFT[split]) % 2, ["even", "odd"]

def ignores(source, split):
    return read(source, "train")

def leaks(source, split):
    images, labels, names = read(source, split)
    train = read(source, "train")
    if split == "test":
        images[:3], labels[:3] = train[0][:3], train[1][:3]
    return images, labels, names
"""

MODEL = """
from torch import nn

def build(input_shape, num_classes, width):
    return nn.Sequential(nn.Flatten(), nn.Linear(36, num_classes))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's directory, which is also the current one."""
    (tmp_path / "own_data.py").write_text(FUNCTION)
    (tmp_path / "own_net.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("own_data", "own_net"):
        sys.modules.pop(name, None)


@pytest.fixture
def images(tmp_path):
    """Images of noise: six to train on and four to test on, of each of two classes."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for name in ("ant", "bee"):
            for number in range(count):
                path = tmp_path / "images" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8)).save(path)
    return tmp_path / "images"


def spec_of(tmp_path, dataset, student="mnist_student"):
    return SweepSpec.model_validate({
        "name": "sweep", "dataset": {"val_fraction": 0.5} | dataset, "storage": str(tmp_path / "runs"),
        "teacher": {"model": "own_net:build" if student == "own_net:build" else "mnist_teacher"},
        "student": {"model": student}, "space": {"method": "kd"},
    })  # fmt: skip


def begin(spec):
    """Prepare the data and record it, as a start or a resumption of the sweep does."""
    data = of(spec.dataset).prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    note = record_data(spec.sweep_dir, data, scores=spec.confirm.top > 0)
    record_code(spec, spec.sweep_dir)
    return note


# The data set


@pytest.mark.parametrize("split", ["train", "val"])
def test_changed_labels_of_a_users_function_are_found_in_every_binding_split(split, own):
    spec = spec_of(own, {"name": "own_data:read"})
    assert begin(spec) == ""
    assert begin(spec) == ""
    sys.modules["own_data"].SHIFT[split] = 1
    with refused(SWEEP, SweepDirError, match=rf"the data set has changed since the sweep began \({split}\); restore"):
        begin(spec)


def test_a_changed_test_split_is_noted_and_read_again_but_not_once_models_were_scored_on_it(own):
    spec = spec_of(own, {"name": "own_data:read"})
    task, sweep = of(spec.dataset), spec.sweep_dir

    def test_labels():
        data = task.prepare(spec.dataset, spec.seed, sweep.store)
        assert task.prepare_test(spec.dataset, data)
        return data.split("test", torch.device("cpu")).labels.tolist()

    begin(spec)
    before = test_labels()
    sys.modules["own_data"].SHIFT["test"] = 1
    assert begin(spec) == "note: the test split has changed since the sweep began"
    assert test_labels() == [1 - label for label in before]
    assert begin(spec) == ""
    result = sweep.confirmation("0001").result
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    sys.modules["own_data"].SHIFT["test"] = 0
    with refused(
        SWEEP, SweepDirError, match="the test split has changed since models were scored on it; restore it, del"
    ):
        begin(spec)
    searching = spec.replaced(confirm=spec.confirm.model_copy(update={"top": 0}))
    assert begin(searching) == "note: the test split has changed since the sweep began"
    with refused(
        SWEEP, SweepDirError, match="the test split has changed since models were scored on it; restore it, del"
    ):
        begin(spec)


def test_a_function_that_ignores_its_split_is_refused(own):
    with refused(SWEEP, DataError, match=r"20 of the 20 images of split 'val' are also in 'train'; .*use its argument"):
        begin(spec_of(own, {"name": "own_data:ignores"}))
    with refused(SWEEP, DataError, match=r"3 of the 20 images of split 'test' are also in 'train'; accepted: splits"):
        begin(spec_of(own, {"name": "own_data:leaks"}))


@pytest.mark.parametrize("how", ["touched", "copied", "renamed", "moved"])
def test_files_that_were_touched_copied_or_moved_are_the_same_data_set(how, images, tmp_path):
    spec = spec_of(tmp_path, {"name": "image_folder", "root": str(images)})
    begin(spec)
    if how == "touched":
        for path in images.rglob("*.png"):
            os.utime(path, (1, 1))
    elif how == "copied":
        shutil.copytree(images, tmp_path / "copy")
        shutil.rmtree(images)
        (tmp_path / "copy").rename(images)
    elif how == "renamed":
        (images / "train" / "ant" / "3.png").rename(images / "train" / "ant" / "3b.png")
    else:
        images.rename(tmp_path / "elsewhere")
        spec = spec_of(tmp_path, {"name": "image_folder", "root": str(tmp_path / "elsewhere")})
    assert begin(spec) == ""


@pytest.mark.parametrize("stream", [False, True])
def test_an_image_repainted_with_its_old_size_and_time_is_found(stream, images, tmp_path):
    spec = spec_of(tmp_path, {"name": "image_folder", "root": str(images), "stream": stream})
    begin(spec)
    path = images / "train" / "bee" / "2.png"
    before = path.stat()
    path.write_bytes(bytes(path.read_bytes()[:-20]) + bytes(8) + path.read_bytes()[-12:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    data = spec.dataset.model_copy(update={"stream": True})  # it is damaged, so only its bytes are read
    with refused(SWEEP, SweepDirError if stream else DataError, match="has changed" if stream else "2.png"):
        begin(spec.replaced(dataset=data) if stream else spec)


def test_only_new_and_changed_files_are_read_again(images, tmp_path, monkeypatch):
    spec = spec_of(tmp_path, {"name": "image_folder", "root": str(images), "stream": True})
    read = []
    hash_of = hashlib.file_digest

    def noted(file, kind):
        read.append(file.name)
        return hash_of(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    monkeypatch.setattr("kdsweep.storage.hashes.SETTLED_SECONDS", -1e9)
    begin(spec)
    assert len(read) == 20
    read.clear()
    begin(spec)
    assert read == []
    touched = images / "train" / "ant" / "3.png"
    os.utime(touched, (1, 1))
    assert begin(spec) == ""
    assert read == [str(touched)]
    for damage in ("", "[1]", '{"x": 3}'):
        (remembered,) = (spec.sweep_dir.store.root / "hashes").iterdir()
        remembered.write_text(damage)
        read.clear()
        assert begin(spec) == ""
        assert len(read) == 20


def test_files_changed_a_moment_ago_are_not_remembered(images, tmp_path):
    spec = spec_of(tmp_path, {"name": "image_folder", "root": str(images), "stream": True})
    begin(spec)
    assert not (spec.sweep_dir.store.root / "hashes").exists()


def test_a_moved_folder_is_streamed_from_its_new_place(images, tmp_path):
    spec = spec_of(tmp_path, {"name": "image_folder", "root": str(images), "stream": True})
    begin(spec)
    images.rename(tmp_path / "elsewhere")
    spec = spec_of(tmp_path, {"name": "image_folder", "root": str(tmp_path / "elsewhere"), "stream": True})
    begin(spec)
    data = of(spec.dataset).prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    assert sum(len(labels) for _, labels in data.split("train", torch.device("cpu")).batches(4)) == 6


def test_a_sweep_of_version_0_1_0_is_compared_by_the_statistics_of_its_data(images, tmp_path):
    spec = spec_of(tmp_path, {"name": "image_folder", "root": str(images)})
    begin(spec)
    recorded = json.loads(spec.sweep_dir.data.read_text())
    del recorded["contents"]
    spec.sweep_dir.data.write_text(json.dumps(recorded | {"digest": "of names and times"}))
    assert begin(spec) == ""
    spec.sweep_dir.data.write_text(json.dumps(recorded | {"digest": "of names and times", "mean": [0.5, 0.5, 0.5]}))
    with refused(SWEEP, SweepDirError, match="the data set has changed since the sweep began; restore"):
        begin(spec)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
@pytest.mark.parametrize("name", ["data", "code"])
def test_a_damaged_record_is_reported_in_one_line(name, content, own):
    spec = spec_of(own, {"name": "own_data:read"})
    begin(spec)
    path = getattr(spec.sweep_dir, name)
    path.write_text(content)
    with refused(SWEEP, SweepDirError) as caught:
        begin(spec)
    assert str(caught.value).startswith(f"{path}: damaged: ")
    assert str(caught.value).endswith("; restore it from a backup, or delete it and run kdsweep resume")
    assert "\n" not in str(caught.value)


# The user's code


def test_an_edited_model_is_refused_when_a_sweep_is_resumed(own):
    spec = spec_of(own, {"name": "mnist_mini", "subset": 100}, student="own_net:build")
    begin(spec)
    assert begin(spec) == ""
    (own / "own_net.py").write_text(MODEL.replace("num_classes)", "num_classes, bias=False)"))
    with refused(
        SWEEP, SweepDirError, match="the code of own_net:build has changed since the sweep began, so its trials"
    ):
        begin(spec)
    spec.save(spec.sweep_dir.spec)
    written = spec.sweep_dir.spec.read_bytes()
    with refused(SWEEP, SweepDirError, match="the code of own_net:build has changed"):
        resume(spec.sweep_dir.root, trials=1000)
    assert spec.sweep_dir.spec.read_bytes() == written
    (own / "own_net.py").write_text(MODEL)
    assert begin(spec) == ""


def test_an_edited_optimizer_of_the_teacher_is_another_teacher(own):
    optimizer = "from kdsweep.training.optimizers.sgd import SGD\nclass Own(SGD):\n    name = 'own'\n"
    (own / "own_steps.py").write_text(optimizer)
    spec = spec_of(own, {"name": "mnist_mini", "subset": 100})
    trained = spec.teacher.train.model_copy(update={"optimizer": "own_steps:Own"})
    spec = spec.replaced(teacher=spec.teacher.model_copy(update={"train": trained}))
    data = of(spec.dataset).prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    before = teacher_digest(spec, data)
    (own / "own_steps.py").write_text(optimizer + "# edited\n")
    assert teacher_digest(spec, data) != before
    sys.modules.pop("own_steps")


def test_an_edited_teacher_function_is_another_teacher(own):
    spec = spec_of(own, {"name": "mnist_mini", "subset": 100}, student="own_net:build")
    data = of(spec.dataset).prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    before = teacher_digest(spec, data)
    assert teacher_digest(spec, data) == before
    (own / "own_net.py").write_text(MODEL.replace("num_classes)", "num_classes, bias=False)"))
    assert teacher_digest(spec, data) != before
