"""Warmup, final rate, rate scaling, clipping, averaged weights and drop path, against numbers computed by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from inputs import CODE, refused
from torch import nn

from kdsweep import models
from kdsweep.config.recipes import teacher_recipe, trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import InputError, ModelError
from kdsweep.models.blocks import DropPath
from kdsweep.search.faults import part_faults
from kdsweep.search.space import SearchSpace
from kdsweep.storage import weights
from kdsweep.tasks.image.batches import Images
from kdsweep.tasks.image.splits import PreparedData, prepare
from kdsweep.teacher import build as teachers
from kdsweep.training.averaging import Average
from kdsweep.training.recipe import Recipe
from kdsweep.training.schedules import SCHEDULES, Schedule
from kdsweep.training.section import OptimizationSpec, TrainSpec
from kdsweep.training.teaching import NoTeacher
from kdsweep.training.trainer import Training

CPU = torch.device("cpu")


def training(tmp_path, model="resnet8", **train) -> Training:
    """A plain run of 4 epochs of 3 steps."""
    draw = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (24, 1, 8, 8), generator=draw, dtype=torch.uint8)
    split = Images(images, torch.randint(0, 10, (24,), generator=draw), (0.5,), (0.5,))
    data = PreparedData(tmp_path, "toy", (1, 8, 8), tuple("0123456789"), (0.5,), (0.5,))
    settings = {"epochs": 4, "batch_size": 8, "schedule": "constant", "optimizer": "sgd", "lr": 0.05, **train}
    optimization = OptimizationSpec(**settings)
    recipe = Recipe(model=model, width=0.25, options={}, optimization=optimization, seed=1, view_seed=1, augment="none")
    return Training(recipe, data, split, split, NoTeacher(CPU))


def rates(run: Training) -> list[float]:
    """The learning rate of each step."""
    step, seen = run._optimizer.step, []
    run._optimizer.step = lambda: (seen.append(float(run._optimizer.rate)), step())
    while not run.done:
        run.run_epoch()
    return seen


# The learning rate


def test_the_rate_rises_over_the_warmup_to_the_schedule_that_spans_the_budget(tmp_path):
    seen = rates(training(tmp_path, warmup_epochs=1.5, schedule="cosine", final_lr_fraction=0.1))
    steps = np.arange(12, dtype=np.float64)
    cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * steps / 12))
    assert seen == pytest.approx(0.05 * cosine * np.minimum(1, (steps + 1) / 4.5))
    assert seen[0] == pytest.approx(0.0111111, rel=1e-5)
    assert seen[-1] == pytest.approx(0.05 * 0.1153334, rel=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_warms_up_and_is_itself_afterwards_to_the_last_bit(name):
    params = {"milestones": [3]} if name == "step" else {}
    warm, plain = (SCHEDULES.create(name, 10, **params, **more) for more in ({"warmup_epochs": 2.0}, {}))
    for step in range(100):
        progress = step / 100
        expected = plain.multiplier(progress, 0.01)
        assert expected == plain.factor(progress)
        found = warm.multiplier(progress, 0.01)
        assert found == (expected if step >= 20 else pytest.approx(expected * (step + 1) / 20))


def test_a_schedule_of_ones_own_warms_up_too():
    class Halved(Schedule):
        def factor(self, progress):
            return 0.5

    assert Halved(4, warmup_epochs=2.0).multiplier(0.0, 0.25) == pytest.approx(0.25)


def test_decays_end_at_a_fraction_of_the_rate():
    linear = SCHEDULES.create("linear", 10, final_lr_fraction=0.2)
    assert [linear.factor(progress) for progress in (0, 0.5, 1)] == pytest.approx([1, 0.6, 0.2])


def test_a_warmup_longer_than_the_budget_is_refused():
    with refused(CODE, InputError, match="cosine.warmup_epochs: found 5; accepted: at most the 4 epochs"):
        SCHEDULES.create("cosine", 4, warmup_epochs=5.0)
    with refused(CODE, InputError, match="step.warmup_epochs: found 5; accepted: at most the 4 epochs"):
        SCHEDULES.create("step", 4, milestones=[1], warmup_epochs=5.0)


@pytest.mark.parametrize(("scaling", "rate"), [("none", 0.05), ("linear", 0.05 / 16), ("sqrt", 0.0125)])
def test_the_rate_follows_the_batch_size(tmp_path, scaling, rate):
    assert rates(training(tmp_path, lr_scaling=scaling, epochs=1)) == pytest.approx([rate] * 3)


def test_a_searched_batch_size_scales_the_rate():
    train = TrainSpec(lr_scaling="linear").with_searched({"batch_size": 512, "lr": 0.1})
    assert (train.lr, train.scaled_lr) == (0.1, pytest.approx(0.4))
    assert TrainSpec(batch_size=512, lr=0.1).scaled_lr == 0.1


# Clipping


def gradients(run: Training) -> list[np.ndarray]:
    """The gradients that the optimizer gets in the first step, in float64."""
    found: list[list[np.ndarray]] = []
    step = run._optimizer.step

    def seen():
        found.append([weight.grad.double().numpy().copy() for weight in run._optimizer.weights])
        step()

    run._optimizer.step = seen
    run.run_epoch()
    return found[0]


def norm(arrays) -> float:
    return math.sqrt(sum(float((array**2).sum()) for array in arrays))


def test_gradients_larger_than_the_norm_are_scaled_down_to_it_together(tmp_path):
    free = gradients(training(tmp_path))
    limit = norm(free) / 4
    clipped = gradients(training(tmp_path, clip_norm=limit))
    assert norm(clipped) == pytest.approx(limit, rel=1e-4)
    for a, b in zip(free, clipped, strict=True):
        np.testing.assert_allclose(b, a / 4, rtol=1e-4, atol=1e-8)


def test_smaller_gradients_are_left_alone(tmp_path):
    for a, b in zip(gradients(training(tmp_path)), gradients(training(tmp_path, clip_norm=1e6)), strict=True):
        assert np.array_equal(a, b)


# The average of the weights


def test_the_average_is_the_recurrence_written_out_in_float64():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = Average(model, 0.5)
    expected = {name: tensor.double().numpy().copy() for name, tensor in model.state_dict().items()}
    for step in range(12):
        model(torch.randn(8, 3))
        with torch.no_grad():
            for weight in model.parameters():
                weight += torch.randn_like(weight)
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double().numpy()
    found = average.state_dict()
    assert found.keys() == expected.keys() - {"1.num_batches_tracked"}
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-5, atol=1e-6)


def test_the_first_averages_of_a_weight_that_counts():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, 0.999)
    found = []
    for value in (1.0, 2.0):
        nn.init.constant_(model.weight, value)
        average.update()
        found.append(float(average.state_dict()["weight"]))
    assert found == pytest.approx([0.9, 1.8])  # 0.1 * 0 + 0.9 * 1; then 2/11 * 0.9 + 9/11 * 2


def test_what_is_validated_and_kept_is_the_average_and_training_goes_on_without_it(tmp_path):
    plain, averaged = training(tmp_path), training(tmp_path, ema_decay=0.9)
    validated = [(run.run_epoch(), run.run_epoch()) for run in (plain, averaged)]
    assert [m["train_loss"] for m in validated[0]] == [m["train_loss"] for m in validated[1]]
    assert validated[0][1]["val_loss"] != validated[1][1]["val_loss"]
    for name, weight in plain.student.state_dict().items():
        assert torch.equal(weight, averaged.student.state_dict()[name])
    for run in (plain, averaged):
        run.use_average()
    average = averaged._average.state_dict()
    for name, weight in averaged.student.state_dict().items():
        assert torch.equal(weight, average.get(name, plain.student.state_dict()[name]))
    assert not torch.equal(plain.student.fc.weight, averaged.student.fc.weight)
    best = training(tmp_path, ema_decay=0.9)
    best.run_epoch()
    assert all(torch.equal(tensor, best._average.state_dict()[name]) for name, tensor in best._best.items()
               if name in best._average.state_dict())  # fmt: skip


def test_a_teacher_that_is_trained_here_is_the_average_of_its_last_epoch(tmp_path):
    spec = SweepSpec.model_validate({
        "name": "s", "dataset": {"name": "mnist_mini", "subset": 100, "val_fraction": 0.5},
        "teacher": {"model": "mnist_student", "train": {"epochs": 2, "batch_size": 16, "ema_decay": 0.9}},
        "student": {"model": "mnist_student"}, "space": {"method": ["none"]}, "storage": str(tmp_path),
    })  # fmt: skip
    store = spec.sweep_dir.store
    data = prepare(spec.dataset, spec.seed, store)
    splits = [data.split(name, CPU) for name in ("train", "val")]
    run = Training(teacher_recipe(spec), data, *splits, NoTeacher(CPU))
    expected = [run.run_epoch() for _ in range(2)][-1]
    epochs = list(teachers.make(spec, data, store, CPU))
    folder = store.teacher(teachers.teacher_digest(spec, data))
    stored = weights.load(folder / teachers.WEIGHTS)
    average = run._average.state_dict()
    assert all(torch.equal(tensor, average[name]) for name, tensor in stored.items())
    assert not torch.equal(stored[next(iter(stored))], next(run.student.parameters()))
    measured = teachers.TeacherCard.read(folder / teachers.CARD).measured
    assert measured["val_loss"] == expected["val_loss"] == epochs[-1]["val_loss"]


@pytest.mark.parametrize("optimizer", ["lamb", "muon"])
def test_a_run_with_every_setting_goes_on_bit_for_bit(tmp_path, optimizer):
    settings = {
        "ema_decay": 0.9, "clip_norm": 0.5, "drop_path": 0.4, "warmup_epochs": 2.5, "lr_scaling": "sqrt",
        "schedule": "cosine", "final_lr_fraction": 0.1, "optimizer": optimizer,
    }  # fmt: skip
    whole, half = training(tmp_path, **settings), training(tmp_path, **settings)
    for _ in range(4):
        whole.run_epoch()
    for _ in range(2):
        half.run_epoch()
    half.save(tmp_path / "state.safetensors")
    resumed = training(tmp_path, **settings)
    resumed.load(tmp_path / "state.safetensors")
    while not resumed.done:
        resumed.run_epoch()
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    for kept in (lambda run: run.student.state_dict(), lambda run: run._average.state_dict(), lambda run: run._best):
        assert kept(whole)
        assert all(torch.equal(tensor, kept(resumed)[name]) for name, tensor in kept(whole).items())
    assert resumed._average.steps == 12


def test_a_state_without_the_average_that_a_run_needs_is_begun_again(tmp_path):
    run = training(tmp_path)
    run.run_epoch()
    run.save(tmp_path / "state.safetensors")
    with refused(CODE, InputError, match="not the state of this run"):
        training(tmp_path, ema_decay=0.9).load(tmp_path / "state.safetensors")


# Drop path


def test_a_dropped_branch_is_zero_and_a_kept_one_is_scaled_up():
    torch.manual_seed(0)
    branch = DropPath(0.25)
    maps = torch.ones(4000, 2, 3, 3)
    dropped = branch(maps)
    each = dropped.flatten(1)
    assert (each == each[:, :1]).all()
    assert sorted(set(each[:, 0].tolist())) == pytest.approx([0, 4 / 3])
    assert float((each[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert branch.eval()(maps) is maps


@pytest.mark.parametrize("name", ["resnet14", "wrn_16_1", "torchvision/convnext_tiny"])
def test_the_chance_to_drop_a_branch_rises_to_that_of_the_last(name):
    model = models.architecture(name, (3, 32, 32), 10, 1.0)
    models.drop_paths(name, model, 0.3)
    chances = [module.p for module in model.modules() if isinstance(module, DropPath)]
    assert len(chances) == {"resnet14": 6, "wrn_16_1": 6, "torchvision/convnext_tiny": 18}[name]
    assert chances[-1] == 0.3
    assert all(b - a == pytest.approx(0.3 / len(chances)) for a, b in pairwise([0, *chances]))
    assert "StochasticDepth" not in str(model)
    assert "0.3" not in str(model)


def test_a_run_drops_paths_in_training_only(tmp_path):
    plain, dropping = training(tmp_path), training(tmp_path, drop_path=0.5)
    assert list(plain.student.state_dict()) == list(dropping.student.state_dict())
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(plain.student.eval()(images), dropping.student.eval()(images))
    assert plain.run_epoch()["train_loss"] != dropping.run_epoch()["train_loss"]


def test_models_without_branches_are_refused():
    with refused(CODE, ModelError, match="model 'lightnn' has no residual branches to drop; accepted: 0, or resnet"):
        models.check_drop_path("lightnn")
    with refused(CODE, ModelError, match=r"takes it as an option instead: options: \{drop_path_rate: 0.1\}"):
        models.check_drop_path("timm/resnet18")
    models.check_drop_path("own:model")
    with refused(CODE, ModelError, match="blocks with kdsweep.models.blocks.DropPath"):
        models.drop_paths("own:model", nn.Linear(2, 2), 0.1)


# The sweep


def test_the_settings_can_be_searched_and_reach_the_run():
    space = {
        "method": ["none"], "warmup_epochs": [0, 2], "clip_norm": {"loguniform": [0.1, 10]}, "ema_decay": [0, 0.99],
        "drop_path": {"uniform": [0, 0.3]}, "schedule": ["cosine", "constant"], "final_lr_fraction": [0.0, 0.1],
        "optimizer": ["muon", "lamb"], "lr": 0.1,
    }  # fmt: skip
    spec = SweepSpec.model_validate({
        "name": "s", "dataset": {"name": "mnist_mini"}, "teacher": {"model": "mnist_teacher"},
        "student": {"model": "resnet8"}, "space": space,
    })  # fmt: skip
    assert not list(part_faults(spec.search_space))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        config = spec.search_space.suggest(study.ask())
        assert ("final_lr_fraction" in config) is (config["schedule"] == "cosine")
        train = trial_recipe(spec, config, 0).optimization
        searched = space.keys() - {"method", "final_lr_fraction"}
        assert {key: getattr(train, key) for key in searched} == {key: config[key] for key in searched}


def test_a_searched_warmup_longer_than_the_budget_is_a_fault_of_the_space():
    space = SearchSpace.parse({"method": ["none"], "warmup_epochs": [1, 30]}).beside(TrainSpec(epochs=20))
    assert list(part_faults(space)) == [(("space", "warmup_epochs"), "found 30; accepted: at most the 20 epochs")]


def test_teachers_of_earlier_versions_are_found_again():
    known = {
        "epochs", "batch_size", "optimizer", "lr", "weight_decay", "momentum", "schedule", "milestones", "gamma",
        "precision",
    }  # fmt: skip
    assert OptimizationSpec().identity().keys() == known
    for key, value in (("ema_decay", 0.9), ("clip_norm", 1.0), ("warmup_epochs", 1.0), ("lr_scaling", "sqrt")):
        assert OptimizationSpec(**{key: value}).identity().keys() == known | {key}


@pytest.mark.gpu
def test_clipping_and_averaging_do_not_wait_for_a_gpu():
    model = nn.Linear(8, 8).cuda()
    model(torch.ones(2, 8, device="cuda")).sum().backward()
    average = Average(model, 0.99)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        nn.utils.clip_grad_norm_(list(model.parameters()), 0.1)
        average.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
