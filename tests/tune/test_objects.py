"""Sweeps over Python objects."""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from inputs import DATA
from inputs import refused as refused_input
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

import kdsweep
from kdsweep.config.spec import read_spec
from kdsweep.datasets import DATASETS, Source, embedded, objects
from kdsweep.datasets.unlabelled import Unlabelled
from kdsweep.distributions import Uniform
from kdsweep.errors import InputError, MethodError, SpecError, SweepDirError
from kdsweep.methods import METHODS, Method, Param
from kdsweep.methods.given import give_methods
from kdsweep.registry import give
from kdsweep.results.report.page import write_report
from kdsweep.sources import source_digest
from kdsweep.terminal.progress import Silent
from kdsweep.tune.origins import record_code

LOCK = threading.Lock()

MARK = "a text that no file of the sweep may contain"
FILE_SWEEP = """\
name: from_file
dataset: {{name: mnist_mini, val_fraction: 0.5, subset: 400, normalize: none}}
teacher: {{model: mnist_teacher, width: 0.25, checkpoint: "kdsweep:mnist_mini_teacher"}}
student: {{model: mnist_student}}
space:
  method: [kd, hint, none]
  width: {{choice: [0.25, 0.5]}}
  temperature: {{loguniform: [2, 8]}}
  lr: {{loguniform: [1e-3, 1e-2]}}
train: {{epochs: 2, batch_size: 64, precision: float32}}
search: {{trials: 4, sampler: random}}
scheduler: {{name: none}}
confirm: {{top: 0}}
storage: {storage}
"""


def digits(split):
    images, labels = DATASETS["mnist_mini"].load(Source(Path("/nowhere")), split)
    return TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))


def tutor():
    model = kdsweep.models.build("mnist_teacher", (1, 28, 28), 10, 0.25)
    model.load_state_dict(load_file(embedded.path("mnist_mini_teacher.safetensors")))
    return model


def small(width):
    return kdsweep.models.build("mnist_student", (1, 28, 28), 10, width)


def called(storage, **changes):
    """Call kdsweep.sweep like the file above, with a function and a class that only this call knows."""

    class Marked(Silent):
        looked, pickled = 0, ()

        def search(self, status):
            self.looked += 1
            self.pickled += tuple(path for path in files(storage) if is_marked(path))

    def student(width):
        return small(width) if MARK else None

    arguments = {
        "teacher": tutor(), "student": student, "train": digits("train"), "epochs": 2, "trials": 4, "confirm": 0,
        "methods": ["kd", "hint", "none"], "storage": storage, "name": "from_objects", "progress": Marked(),
        "space": {"width": {"choice": [0.25, 0.5]}, "temperature": {"loguniform": [2, 8]},
                  "lr": {"loguniform": [1e-3, 1e-2]}},
        "overrides": {"dataset.val_fraction": 0.5, "dataset.subset": 400, "train.batch_size": 64,
                      "train.precision": "float32", "search.sampler": "random", "scheduler.name": "none"},
    }  # fmt: skip
    results = kdsweep.sweep(**arguments | changes)
    assert arguments["progress"].looked
    assert arguments["progress"].pickled == ()
    return results


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def is_marked(path):
    """Whether a file holds the mark, also as Ray Tune writes pickled objects: in hexadecimal."""
    with suppress(FileNotFoundError):  # replaced meanwhile
        content = path.read_bytes()
        return MARK.encode() in content or MARK.encode().hex().encode() in content
    return False


@pytest.mark.slow
def test_a_sweep_from_objects_gives_the_trials_of_the_same_sweep_from_a_file(local_ray, tmp_path, capfd):
    path = tmp_path / "from_file.yaml"
    path.write_text(FILE_SWEEP.format(storage=tmp_path / "files"))
    expected = kdsweep.run(path)
    assert "4/4 trials" in capfd.readouterr().err  # progress is shown by default

    storage = tmp_path / "objects"
    assert len(called(storage, trials=2).trials) == 2
    found = called(storage)  # the same call with more trials extends the sweep
    curves = ["trial", "epoch", "train_loss", "val_loss", "val_accuracy"]
    for one, other in ((expected.trials, found.trials), (expected.epochs, found.epochs)):
        columns = [name for name in curves if name in one] + (["config", "parameters"] if "config" in one else [])
        order = ["trial", *(["epoch"] if "epoch" in one else [])]
        left, right = (frame[columns].sort_values(order, ignore_index=True) for frame in (one, other))
        assert left.equals(right)
    assert (found.trials["state"] == "COMPLETE").all()
    assert capfd.readouterr().err == ""

    (folder,) = found.export(tmp_path / "students", top=1)
    config = json.loads((folder / "config.json").read_text())
    assert config["model"].startswith("object:")
    assert "student=build" in (folder / "README.md").read_text()
    images = digits("test")[:8][0] / 255
    assert kdsweep.load_student(folder)(images).shape == (8, 10)  # this process has the function
    with pytest.raises(InputError, match="different"):
        called(storage, teacher=nn.Sequential(tutor()))
    check_elsewhere(folder, found.path)


def check_elsewhere(folder, sweep):
    """What another process, which was given no objects, says and does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdsweep.registry._given", {})
        with pytest.raises(SweepDirError, match=r"was made from Python objects .*kdsweep.sweep\(.*name='from_objects'"):
            kdsweep.resume(sweep)
        with pytest.raises(InputError, match="holds its weights but no code; load it in Python"):
            kdsweep.load_student(folder)
        found = kdsweep.load_results(sweep)
        assert len(found.trials) == 4
        (again,) = found.export(folder.parent / "again", top=1)
        assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
        with pytest.raises(InputError, match="is a Python object that this process does not have"):
            found.export(folder.parent / "onnx", top=1, onnx=True)
        student = kdsweep.load_student(folder, student=small)
        assert student(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def refused(error=InputError, **changes):
    given = {"teacher": tutor(), "student": small, "train": digits("test"), "progress": False}
    with pytest.raises(error) as raised:
        kdsweep.sweep(**given | changes)
    return raised.value


def test_what_cannot_be_used_is_said_in_one_line_before_anything_starts(tmp_path):
    def refuse(message, **changes):
        assert re.match(message, str(refused(storage=tmp_path, **changes)))

    refuse(
        "^teacher: found an int in a dict; accepted: a torch.nn.Module, or {name: module}",
        teacher={"a": tutor(), "b": 1},
    )
    refuse("^teacher: found the name 'my net'; accepted: letters, digits and '_'", teacher={"my net": tutor()})
    refuse("^teacher: found a str; accepted: a torch.nn.Module", teacher="resnet18")
    refuse("^student: found a Sequential, which is built already; accepted: a function", student=small(1))
    refuse("^student: found a str; accepted: a function that builds one", student="lightnn")
    refuse("^space.width: found widths, but student takes none", student=lambda: small(1), space={"width": [0.5, 1]})
    floats = [(torch.randn(4), index % 2) for index in range(40)]
    refuse(
        "^augment: the samples of train are not 8-bit images, which it needs; accepted: none, or PIL",
        train=floats,
        augment=["flip"],
    )
    refuse("^test: found a str without|^test: found no|^test.0.: found a", test="abc")
    lock = threading.Lock()
    refuse("^student: cannot be sent to workers: cannot pickle", student=lambda width: small(width) if lock else None)
    assert not list(tmp_path.glob("*/trials"))


class Counting:
    """A data set that counts how many samples were read of it."""

    def __init__(self, samples):
        self.samples, self.read = samples, 0

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.read += 1
        return self.samples[index]


class Closer(Method):
    """The mean squared distance of the logits, times `pull`."""

    formula = "pull mean (z_s - z_t)²"
    pull = Param(1.0, "factor", Uniform(0.5, 2), valid=Uniform(0, 10))

    def term(self, student, teacher, labels):
        return self.pull * (student.logits.float() - teacher.logits.float()).square().mean()


class Labelled(Closer):
    """The same, but it says that it reads labels."""

    reads_labels = True


@pytest.mark.parametrize(("changes", "fault"), [
    ({"methods": ["kd", "kdd"]}, "methods: unknown method 'kdd'"),
    ({"methods": [nn.Linear]}, "methods: found <class 'torch.nn.modules.linear.Linear'>; accepted: names such as kd"),
    ({"methods": [("kd", "none")]}, "methods: found 'kd+none'; accepted: a sum of different methods"),
    ({"methods": [Closer], "space": {Closer: {"pull": {"uniform": [0, 90]}}}}, "space.object:Closer.pull: "),
    ({"space": {"lr": {"loguniform": [0, 1]}}}, "space.lr: "),
    ({"space": {"depth": [1, 2]}}, "space.depth: unknown key 'depth'"),
    ({"augment": ["spin"]}, "augment.0: unknown transform 'spin'"),
    ({"epochs": 0}, "epochs: found 0"),
    ({"overrides": {"train.optimizer": "adm"}}, "train.optimizer: unknown optimizer 'adm'"),
    ({"overrides": {"objective": {"metric": "val_acc"}}}, "objective.metric: unknown metric 'val_acc'"),
    ({"student": lambda width: small(width, 3)}, "student: cannot be built with width 0.5: small() takes 1"),
    ({"student": lambda: small(1), "space": {"width": [0.5, 1]}}, "space.width: found widths"),
    ({"student": lambda width: small(width) if LOCK else None}, "student: cannot be sent to workers: cannot pickle"),
    ({"methods": [Labelled], "unlabelled": True}, "methods: found object:Labelled, which reads labels"),
    ({"methods": ["kd"], "augment": ["mixup"], "unlabelled": True}, "augment: found mixup"),
])  # fmt: skip
def test_faults_of_the_settings_are_told_before_a_data_set_is_read(tmp_path, changes, fault):
    train = Counting(digits("train"))
    further = {"unlabelled": Counting(train.samples)} if "unlabelled" in changes else {}
    error = refused(storage=tmp_path, train=train, **changes | further)
    assert str(error).startswith(fault)
    assert train.read <= 10
    assert all(images.read <= 10 for images in further.values())


def test_classes_of_methods_have_names(tmp_path):
    assert give_methods(["kd", Closer, ("kd", Closer), METHODS["at"]]) == (
        ["kd", "object:Closer", "kd+object:Closer", "at"], {Closer: "object:Closer", "Closer": "object:Closer"},
    )  # fmt: skip
    other = type("Closer", (Closer,), {})
    with pytest.raises(MethodError, match="two classes called Closer"):
        give_methods([Closer, other])
    before = source_digest("object:Closer")
    assert before
    give("Closer", type("Closer", (Labelled,), {}))
    assert source_digest("object:Closer") != before


def test_unlabelled_images_are_read_once_without_their_labels(tmp_path):
    images = [(image, "no label") for image, _ in (digits("test")[index] for index in range(12))]
    root = objects.store_unlabelled(images, tmp_path)
    assert objects.store_unlabelled([image for image, _ in images], tmp_path) == root
    found = Unlabelled(root, (1, 28, 28))
    assert (found.count(), found.unreadable()) == (12, [])
    assert found.read().tolist() == [image.tolist() for image, _ in images]
    assert Unlabelled(root, (3, 28, 28)).unreadable() == [
        "unlabelled images are of shape 1 x 28 x 28, but the others are 3 x 28 x 28"
    ]
    for wrong, message in (
        (7, "unlabelled: found an int without len"), ([], "unlabelled: found no samples"),
        ([torch.randn(1, 4, 4)], "found samples that are not 8-bit images; accepted: PIL"),
        ([torch.zeros(1, 4, 4), torch.full((1, 4, 4), torch.nan)], r"unlabelled\[1\]: found nan in the sample"),
        ([torch.zeros(1, 4, 4, dtype=torch.uint8), torch.zeros(1, 5, 4, dtype=torch.uint8)], "found shapes"),
    ):  # fmt: skip
        with refused_input(DATA, match=message):
            objects.store_unlabelled(wrong, tmp_path)


@pytest.mark.slow
def test_a_method_class_and_unlabelled_images_are_swept(tmp_path):
    storage = tmp_path / "runs"
    further = [digits("test")[index][0] for index in range(60)]
    changes = {"methods": [Closer, ("kd", Closer)], "unlabelled": further, "trials": 3, "name": "own_method",
               "space": {"width": 0.25, "temperature": 4, "Closer": {"pull": {"uniform": [1, 2]}}}}  # fmt: skip
    found = called(storage, **changes)
    assert (found.trials["state"] == "COMPLETE").all()
    assert set(found.trials["method"]) <= {"object:Closer", "kd+object:Closer"}
    assert found.trials["object:Closer.pull"].between(1, 2).all()
    assert set(found.trials["unlabelled_images"]) == {60}
    assert read_spec(found.sweep).given_objects["methods.Closer"] == "object:Closer"
    give("Closer", Labelled)
    with pytest.raises(SweepDirError, match="the code of object:Closer has changed since the sweep began"):
        record_code(found.spec, found.sweep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdsweep.registry._given", {})
        with pytest.raises(SweepDirError, match=r"was made from Python objects .*methods.Closer"):
            kdsweep.resume(found.path)
        elsewhere = kdsweep.load_results(found.path)
        assert elsewhere.trials["object:Closer.pull"].equals(found.trials["object:Closer.pull"])
        assert "object:Closer" in write_report(elsewhere, tmp_path / "report.html").read_text()
        assert elsewhere.export(tmp_path / "students", top=1)


def test_faults_of_the_settings_name_the_arguments_all_at_once(tmp_path):
    error = refused(SpecError, methods="kdd", epochs=0, trials=0, augment="spin", storage=tmp_path, name="a/b")
    assert [fault.split(":")[0] for fault in error.faults] == ["name", "augment", "methods", "epochs", "trials"]
    error = refused(SpecError, student=lambda width: nn.Flatten(), storage=tmp_path)
    assert [fault.split(":")[0] for fault in error.faults] == ["student"]


def test_a_sweep_file_cannot_name_what_only_one_process_has(sweep_file):
    for name in ("__main__:student", "object:Net_12345678"):
        with pytest.raises(SpecError, match=r"student.model: .*kdsweep\.sweep") as raised:
            kdsweep.load_spec(sweep_file, {"student.model": name})
        assert len(raised.value.faults) == 1
    with pytest.raises(
        SpecError, match=r"space.method: 'object:Nowhere' is a Python object that this process does not"
    ):
        kdsweep.load_spec(sweep_file, {"space.method": ["kd", "object:Nowhere"]})
