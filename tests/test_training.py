"""One student's training: the formula, the schedules, and that a run goes on as if it had never stopped."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from kdsweep import methods, models
from kdsweep import teacher as teachers
from kdsweep.data import Images, prepare
from kdsweep.errors import CheckpointError
from kdsweep.outputs import TeacherInLoop
from kdsweep.spec import OptimizationSpec, SweepSpec
from kdsweep.training import (
    DivergedError,
    NoTeacher,
    Recipe,
    Training,
    autocast_dtype,
    evaluate,
    method_params,
    rate_factor,
)
from kdsweep.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")
KD = {"method": "kd", "width": 0.5, "lr": 3e-3, "alpha": 0.7, "temperature": 3.0}
HINT = {"method": "hint", "width": 0.5, "lr": 3e-3, "alpha": 0.6}


def written(root, **sections):
    """A small sweep of MNIST digits; sections are merged into it."""
    values = {
        "name": "small",
        "dataset": {"name": "mnist_mini", "subset": 160, "val_fraction": 0.5},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        "student": {"model": "lightnn"},
        "space": {"method": ["kd", "hint", "none"]},
        "train": {"epochs": 3, "batch_size": 32, "lr": 3e-3},
        "storage": str(root),
    }
    merged = {key: {**value, **sections.pop(key, {})} if isinstance(value, dict) else value
              for key, value in values.items()}  # fmt: skip
    return SweepSpec.model_validate(merged | sections)


def open_bench(spec):
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    card = provide_teacher(spec, spec.sweep_dir, data, CPU, lambda metrics: None)
    return Workbench(spec, spec.sweep_dir, data, card, CPU)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """One storage for the module, so that data and outputs are computed once."""
    return tmp_path_factory.mktemp("training")


@pytest.fixture
def bench(storage):
    return open_bench(written(storage))


def one_batch(bench, config, seed=1, **train):
    """A run whose epoch is one step of gradient descent over all training images."""
    settings = {"epochs": 1, "batch_size": 1000, "optimizer": "sgd", "momentum": 0.0, "schedule": "constant", **train}
    train_spec = bench.spec.train.model_copy(update=settings)
    spec = bench.spec.replaced(train=train_spec, student=bench.spec.student.model_copy(update={"model": "mnist_student"}))
    return Workbench(spec, bench._sweep, bench._data, bench._card, CPU).training(config, seed, bench._sweep.root / "none")


def curve(training, until=99):
    """Metrics by epoch, without the time they took."""
    epochs = []
    while not training.done and training.epoch < until:
        metrics = training.run_epoch()
        metrics.pop("seconds")
        epochs.append(metrics)
    return epochs


def fresh(bench, config, seed=1):
    return bench.training(config, seed, bench._sweep.root / "no such state")


def assert_same(left, right):
    """Equal to the last bit, tensors within too."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right


# The formula


def kl(student, teacher, temperature):
    """T² KL(teacher ‖ student), written out."""
    p = torch.softmax(teacher.double() / temperature, 1)
    q = torch.softmax(student.double() / temperature, 1)
    return temperature**2 * (p * (p / q).log()).sum(1).mean()




def test_one_step_of_kd_is_the_formula_written_out(bench):
    config = KD | {"kd.weight": 2.5, "lr": 0.1, "weight_decay": 0.01}
    training = one_batch(bench, config)
    before = {name: weight.detach().clone() for name, weight in training.student.named_parameters()}
    images = ((bench.train.images / 255 - 0.1307) / 0.3081).float()
    labels = bench.train.labels
    with torch.no_grad():
        teacher = bench.teacher._tapped.model(images)
    student = models.build("mnist_student", (1, 28, 28), 10, width=0.5)
    student.load_state_dict(training.student.state_dict())
    logits = student(images)
    task = -torch.log_softmax(logits, 1)[torch.arange(len(labels)), labels].mean()
    loss = (1 - 0.7) * task + 0.7 * 2.5 * kl(logits, teacher, 3.0)
    loss.backward()
    metrics = training.run_epoch()
    assert metrics["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    after = dict(training.student.named_parameters())
    for name, parameter in student.named_parameters():
        expected = before[name] - 0.1 * (parameter.grad + 0.01 * before[name])
        torch.testing.assert_close(after[name].detach(), expected, rtol=1e-4, atol=1e-6)
        assert not torch.equal(after[name], before[name])
