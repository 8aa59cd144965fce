"""The sweep files of search_spaces/ load and hold the published settings; docs/sweep-files.md says what one can say."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from types import NoneType
from typing import get_args

import corpus
import pytest
from PIL import Image
from pydantic import BaseModel

from kdsweep import distributions, methods
from kdsweep.config.load import load_spec
from kdsweep.config.spec import SweepSpec
from kdsweep.search.parsing import SHARED
from kdsweep.search.proposer import Proposer
from kdsweep.tasks.image import AgreementTask
from kdsweep.tasks.metrics import METRICS
from kdsweep.training.section import OptimizationSpec, TrainSpec

ROOT = Path(__file__).parents[2]
FILES = sorted(path.stem for path in (ROOT / "search_spaces").glob("*.yaml"))
REPRODUCTIONS = ("cifar10_tutorial", "mnist_keras", "densenet_convnet3", "cifar100_resnet")


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads a sweep file by name, once, with an image folder at its data set's root and no way to fetch weights."""
    root = tmp_path_factory.mktemp("images")
    for number, folder in enumerate(["train/cat", "train/dog", "test/cat", "test/dog"]):
        (root / folder).mkdir(parents=True)
        for image in range(8):
            Image.new("RGB", (80, 70), (number, image, 0)).save(root / folder / f"{image}.png")

    def refuse(*args, **kwargs):
        raise AssertionError("loading a sweep file fetches weights")

    places = {"dataset.root": str(root), "storage": str(root / "runs")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.hub.load_state_dict_from_url", refuse)
        patch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
        texts = {**places, "dataset.root": str(corpus.write(root / "texts"))}
        yield cache(
            lambda name: load_spec(ROOT / "search_spaces" / f"{name}.yaml", texts if name == "text" else places)
        )


def test_every_promised_file_is_there():
    assert {*REPRODUCTIONS, "quickstart", "image_folder", "cifar10_margin"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_each_file_loads_under_its_own_name_without_fetching_anything(load, name):
    assert load(name).name == name


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_the_first_trials_are_the_points_to_the_last_value(load, name):
    spec = load(name)
    proposer = Proposer.of(spec.search, spec.search_space, spec.seed)
    for number, point in enumerate(spec.search.points):
        constants = {
            key: drawn.value
            for key, drawn in spec.search_space.parameters(point["method"]).items()
            if isinstance(drawn, distributions.Constant)
        }
        assert proposer.propose(number) == constants | point


def test_the_tutorial_is_repeated(load):
    spec = load("cifar10_tutorial")
    assert (spec.dataset.name, spec.dataset.augment, spec.dataset.normalize) == ("cifar10", "none", "imagenet")
    assert (spec.teacher.model, spec.student.model) == ("tutorial_teacher", "lightnn")
    for train in (spec.teacher.train, spec.train):
        assert (train.epochs, train.batch_size, train.optimizer, train.lr) == (10, 128, "adam", 0.001)
        assert (train.schedule, train.weight_decay, train.precision) == ("constant", 0, "float32")
    common = {"width": 1, "lr": 0.001, "schedule": "constant"}
    assert spec.search.points == [
        {"method": "none", **common},
        {"method": "kd", **common, "alpha": 0.25, "temperature": 2},
        {"method": "cosine", **common, "alpha": 0.25, "cosine.flat": 1, "cosine.weight": 1},
        {"method": "hint", **common, "alpha": 0.25, "hint.stage": -1, "hint.kernel_size": 3, "hint.weight": 1},
    ]


def test_the_keras_example_is_repeated(load):
    spec = load("mnist_keras")
    assert (spec.dataset.name, spec.dataset.augment, spec.dataset.normalize) == ("mnist", "none", "none")
    assert (spec.teacher.model, spec.student.model) == ("mnist_teacher", "mnist_student")
    assert (spec.teacher.train.epochs, spec.train.epochs) == (5, 3)
    for train in (spec.teacher.train, spec.train):
        assert (train.batch_size, train.optimizer, train.lr) == (32, "adam", 0.001)
        assert (train.schedule, train.weight_decay, train.precision) == ("constant", 0, "float32")
    assert spec.search.points == [
        {"method": "none", "width": 1, "lr": 0.001},
        {"method": "kd", "width": 1, "lr": 0.001, "alpha": 0.9, "temperature": 10, "kd.weight": 0.01},
    ]


def test_the_densenet_notebook_is_repeated(load):
    spec = load("densenet_convnet3")
    assert (spec.dataset.name, spec.dataset.resize, spec.dataset.normalize) == ("cifar10", 128, "imagenet")
    assert (spec.teacher.model, spec.student.model) == ("torchvision/densenet121", "convnet3")
    assert spec.teacher.options == {"weights": "DEFAULT", "head_hidden": [250, 50]}
    for train in (spec.teacher.train, spec.train):
        assert (train.epochs, train.batch_size, train.optimizer, train.lr) == (10, 100, "amsgrad", 0.001)
        assert (train.schedule, train.weight_decay, train.precision) == ("constant", 0, "float32")
    assert spec.search.points == [
        {"method": "none", "width": 1, "lr": 0.001},
        {"method": "kd", "width": 1, "lr": 0.001, "alpha": 0.5, "temperature": 5, "kd.weight": 0.1},
    ]


def test_the_papers_on_cifar100_are_repeated(load):
    spec = load("cifar100_resnet")
    assert (spec.dataset.name, spec.dataset.augment) == ("cifar100", "crop_flip")
    assert (spec.teacher.model, spec.student.model) == ("resnet56", "resnet20")
    for train in (spec.teacher.train, spec.train):
        assert (train.epochs, train.batch_size, train.optimizer, train.lr) == (240, 64, "sgd", 0.05)
        assert (train.momentum, train.weight_decay) == (0.9, 0.0005)
        assert (train.schedule, train.milestones, train.gamma) == ("step", [150, 180, 210], 0.1)
    plain, kd, at, dkd = spec.search.points
    shared = {"width": 1, "schedule": "step"}
    assert plain == {**shared, "method": "none", "lr": 0.05, "weight_decay": 0.0005}
    assert kd == {
        **shared, "method": "kd", "lr": 0.05, "weight_decay": 0.0005, "alpha": 0.9, "temperature": 4
    }  # fmt: skip
    assert {key: at[key] for key in ("method", *shared, "at.weight")} == {"method": "at", **shared, "at.weight": 1000}
    assert {key: dkd[key] for key in ("method", *shared, "temperature", "dkd.beta")} == {
        "method": "dkd", **shared, "temperature": 4, "dkd.beta": 2
    }  # fmt: skip


def test_losses_and_optimizers_are_compared_with_the_settings_that_each_takes(load):
    spec = load("cifar10_margin")
    drawn = set()
    proposer = Proposer.of(spec.search, spec.search_space, spec.seed)
    for number in range(20):
        config = proposer.propose(number)
        drawn.add((config["task_loss"], config["optimizer"], config.get("nesterov")))
        assert ("label_smoothing" in config) is (config["task_loss"] == "cross_entropy")
        assert ("momentum" in config) is ("nesterov" in config) is (config["optimizer"] == "sgd")
        if number < len(spec.search.points):
            assert config == spec.search.points[number]
    assert {(loss, optimizer) for loss, optimizer, _ in drawn} == {
        (loss, optimizer) for loss in ("cross_entropy", "multi_margin") for optimizer in ("adam", "sgd")
    }
    assert {nesterov for _, _, nesterov in drawn} == {True, False, None}


@pytest.mark.parametrize(
    ("name", "labels", "divergence"),
    [
        ("cifar10_tutorial", 0.75, 0.25 * 2**2),  # .75 CE + .25 T² KL
        ("mnist_keras", 0.1, 0.9),  # .1 CE + .9 KL, without T²
        ("densenet_convnet3", 0.5, 0.5 * 5**2 / 10),  # .5 CE + .5 T² KL, divided by the classes
        ("cifar100_resnet", 0.1, 0.9 * 4**2),  # .1 CE + .9 T² KL
    ],
)
def test_alpha_and_weight_give_the_published_factors_of_both_losses(load, name, labels, divergence):
    (point,) = (point for point in load(name).search.points if point["method"] == "kd")
    alpha = point["alpha"]
    weight = point.get("kd.weight", methods.METHODS["kd"].params()["weight"].default)
    assert 1 - alpha == pytest.approx(labels)
    assert alpha * weight * point["temperature"] ** 2 == pytest.approx(divergence)


@pytest.mark.parametrize(("method", "published"), [("at", 1000), ("dkd", 1)])
def test_a_term_beside_a_whole_cross_entropy_takes_the_published_steps(load, method, published):
    # SGD at rate r with decay d on c * loss takes the steps of rate r * c with decay d / c on the loss.
    (point,) = (point for point in load("cifar100_resnet").search.points if point["method"] == method)
    weight = point.get(f"{method}.weight", methods.METHODS[method].params()["weight"].default)
    assert point["lr"] * (1 - point["alpha"]) == pytest.approx(0.05)
    assert point["lr"] * point["alpha"] * weight == pytest.approx(0.05 * published)
    assert point["lr"] * point["weight_decay"] == pytest.approx(0.05 * 5e-4)


def documented() -> dict[str, str]:
    """The rows of docs/sweep-files.md: default by key, both as the page writes them."""
    text = (ROOT / "docs" / "sweep-files.md").read_text(encoding="utf-8")
    keys, _, _ = text.partition("## The sweep directory")
    return dict(re.findall(r"^\| `([\w.]+)` \| ([^|]*?) \|", keys, re.MULTILINE))


def declared(section: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """The keys of a section and of those in it, with their defaults as YAML writes them."""
    found = {}
    for name, field in section.model_fields.items():
        kind = field.annotation
        if kind is OptimizationSpec:
            continue  # teacher.train has the keys of train
        if isinstance(field.default, BaseModel):
            kind = type(field.default)  # `objective` may also be a list of such sections
        if NoneType in get_args(kind) and isinstance(get_args(kind)[0], type):
            kind = get_args(kind)[0]  # an optional section or value
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= declared(kind, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            found[f"{prefix}{name}"] = "required" if field.is_required() else f"`{in_yaml(default)}`"
    return found


def in_yaml(value: object) -> str:
    """A default as a sweep file writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(in_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def test_the_page_on_sweep_files_lists_every_key_with_its_default_and_no_other():
    keys = declared(SweepSpec)
    assert keys.pop("space") == "required"
    keys |= {"name": "the file's name", "teacher.train.epochs": f"`{OptimizationSpec.model_fields['epochs'].default}`"}
    assert {key: default for key, default in documented().items() if not key.startswith("space.")} == keys


def test_the_teachers_training_differs_from_the_students_as_the_page_says():
    theirs, ours = OptimizationSpec.model_fields, TrainSpec.model_fields
    assert set(ours) - set(theirs) == {"task_loss", "label_smoothing", "capture", "cohort"}
    assert [name for name in theirs if theirs[name].default != ours[name].default] == ["epochs"]


def test_the_page_on_sweep_files_lists_everything_that_a_space_may_search():
    rows = {key.removeprefix("space.") for key in documented() if key.startswith("space.")}
    assert rows == {*SHARED, "method", "student"}


def test_the_page_on_sweep_files_lists_the_metrics_with_their_directions():
    text = (ROOT / "docs" / "sweep-files.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| val_(\w+) \| (max|min) \|", text, re.MULTILINE))
    assert len(rows) >= 5
    without_labels = AgreementTask.metrics
    assert rows.keys() >= without_labels.keys()
    assert rows == {name: (without_labels.get(name) or METRICS[name]).mode for name in rows}


def test_the_page_on_sweep_files_shows_every_distribution():
    text = (ROOT / "docs" / "sweep-files.md").read_text(encoding="utf-8")
    assert [name for name in distributions.NAMES if f"`{{{name}: [" not in text] == []
