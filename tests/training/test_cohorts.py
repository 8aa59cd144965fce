"""A cohort gives each of its members the run that it has alone, up to rounding."""

from __future__ import annotations

import gc
import math
import weakref
from pathlib import Path

import pytest
import torch
from test_training import KD, open_bench, written
from torch import nn

from kdsweep.config.recipes import trial_recipe
from kdsweep.errors import CheckpointError, ModelError
from kdsweep.methods import METHODS, kd
from kdsweep.models import MODELS, InputSpec
from kdsweep.models.stacked import StackError, fault, stack
from kdsweep.registry import give
from kdsweep.storage import weights
from kdsweep.tasks.losses import LOSSES
from kdsweep.training.cohort import Cohort
from kdsweep.training.grouping import cohort_key
from kdsweep.training.optimizers import OPTIMIZERS
from kdsweep.training.trainer import DivergedError, Training

# The largest difference of a metric after some ten steps, and of a tensor in norm. Rounding that moves one activation
# across the kink of a ReLU changes a gradient visibly, and batch norm and Adam amplify rounding: a weight with a
# gradient of zero but for rounding moves by the learning rate. Students with batch norm are therefore compared with SGD
# and `ROUGHLY`.
TOLERANCE, ROUGHLY = 1e-4, 5e-3
STACKED = sorted(name for name in METHODS if "stacks" in vars(METHODS[name]))
ALONE = sorted(set(METHODS) - set(STACKED))
STUDENTS = sorted({"lightnn", "mnist_student", "resnet8", "wrn_16_1", "tutorial_teacher"})


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("cohorts")


@pytest.fixture(scope="module")
def bench(storage):
    return open_bench(written(storage))


def configs(method, count=3, **shared):
    """Configurations that differ in everything that members of a cohort may differ in."""
    found = []
    for n in range(count):
        config = {"method": method, "width": 0.25, "lr": 1e-3 * (n + 1), "weight_decay": 1e-3 * n, **shared}
        if method != "none":
            config["alpha"] = 0.3 + 0.2 * n
        for term in [] if method == "none" else method.split("+"):
            free = vars(METHODS[term])["stacks"] | {"weight"}
            declared = METHODS[term].params()
            config |= {f"{term}.{name}": declared[name].default * (1 + n / 4) for name in free}
        found.append(config)
    return found


def cohort_of(bench, configs, seed=1):
    return bench.cohort(configs, seed)


def alone(bench, config, seed=1):
    return bench.training(config, seed, bench.spec.sweep_dir.root / "no such state")


def run(training, epochs):
    """The rows of some epochs; those of a cohort by member."""
    return [training.run_epoch() for _ in range(epochs)]


def assert_equal_runs(cohort, place, training, tolerance=TOLERANCE):
    """A member has the metrics, weights, optimizer state and best epoch of a separate run."""
    member = cohort.members[place]
    assert len(member.history) == len(training.history) > 0
    for ours, theirs in zip(member.history, training.history, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds"}:
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance, abs=tolerance), name
    assert (member.best_value, member.best_epoch) == pytest.approx((training.best_value, training.best_epoch))
    state = cohort._state(place)
    pairs = [
        (state.student, training.student.state_dict()),
        (state.method, training.method.state_dict()),
        (state.optimizer, training._optimizer.state_dict()),
        (state.average, training._average.state_dict()),
        (state.best, training._best),
    ]
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert ours[name].shape == tensor.shape
            difference = float((ours[name] - tensor).detach().float().norm())
            assert difference <= tolerance * (1 + float(tensor.detach().float().norm())), name


def assert_each_as_alone(bench, configs, epochs=2, tolerance=TOLERANCE):
    cohort = cohort_of(bench, configs)
    run(cohort, epochs)
    for place, config in enumerate(configs):
        training = alone(bench, config)
        run(training, epochs)
        assert_equal_runs(cohort, place, training, tolerance)


# Equal to separate runs


@pytest.mark.parametrize("method", [*STACKED, "kd+at", "dkd+cosine"])
def test_each_member_trains_as_alone_with_every_method_that_stacks(storage, method):
    assert_each_as_alone(open_bench(written(storage, train={"optimizer": "sgd"})), configs(method))


@pytest.mark.parametrize("student", STUDENTS)
def test_each_member_trains_as_alone_with_every_kind_of_student(storage, student):
    bench = open_bench(written(storage, student={"model": student}, train={"optimizer": "sgd"}))
    assert_each_as_alone(bench, configs("kd"), epochs=1, tolerance=ROUGHLY)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if vars(OPTIMIZERS[name]).get("stacks")])
def test_each_member_trains_as_alone_with_every_optimizer_that_stacks(storage, optimizer):
    bench = open_bench(written(storage, train={"optimizer": optimizer}))
    assert_each_as_alone(bench, configs("kd"))


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({"train": {"warmup_epochs": 1, "final_lr_fraction": 0.1}}, id="warmup"),
        pytest.param({"train": {"schedule": "step", "milestones": [1], "gamma": 0.1}}, id="step"),
        pytest.param({"train": {"ema_decay": 0.9}}, id="average"),
        pytest.param({"train": {"label_smoothing": 0.1}}, id="label smoothing"),
        pytest.param({"train": {"task_loss": "multi_margin"}}, id="margin loss"),
        pytest.param({"train": {"batch_size": 79}}, id="last batch of one"),
        pytest.param({"train": {"lr_scaling": "linear"}}, id="scaled rate"),
        pytest.param({"train": {"optimizer": "sgd", "nesterov": True}}, id="nesterov"),
        pytest.param({"dataset": {"augment": "crop_flip"}}, id="augmentation"),
    ],
)
def test_settings_of_the_training_are_those_of_a_separate_run(storage, sections):
    assert_each_as_alone(open_bench(written(storage, **sections)), configs("kd"))


@pytest.mark.parametrize(
    "shared",
    [
        {"alpha_schedule": "linear"},
        {"temperature_schedule": "cosine"},
        {"alpha_schedule": "cosine", "temperature_schedule": "linear"},
    ],
    ids=["alpha", "temperature", "both"],
)
def test_schedules_of_alpha_and_temperature_are_those_of_a_separate_run(bench, shared):
    assert_each_as_alone(bench, configs("kd", **shared))


def test_gradients_are_clipped_to_the_norm_of_each_member(bench):
    clipped = [config | {"clip_norm": norm} for config, norm in zip(configs("kd"), (0.0, 0.05, 0.5), strict=True)]
    assert_each_as_alone(bench, clipped)


def test_dropped_branches_are_those_of_a_separate_run(storage):
    sections = {"student": {"model": "resnet8"}, "train": {"optimizer": "sgd", "drop_path": 0.5}}
    assert_each_as_alone(open_bench(written(storage, **sections)), configs("kd"), epochs=1, tolerance=ROUGHLY)


def test_bfloat16_is_that_of_a_separate_run(storage):
    bench = open_bench(written(storage, train={"precision": "bfloat16", "optimizer": "sgd"}))
    assert_each_as_alone(bench, configs("kd"), tolerance=ROUGHLY)


def test_a_cohort_of_one_is_a_run(bench):
    assert_each_as_alone(bench, configs("kd", 1), epochs=3)


# Members leave, are saved and loaded


def test_members_that_are_kept_go_on_as_alone(bench):
    settings = configs("ctkd", 4)
    cohort = cohort_of(bench, settings)
    run(cohort, 1)
    cohort.keep([3, 1])
    rows = run(cohort, 2)
    assert [len(row) for row in rows] == [2, 2]
    assert cohort.done
    for place, number in enumerate((3, 1)):
        training = alone(bench, settings[number])
        run(training, 3)
        assert_equal_runs(cohort, place, training)


@pytest.mark.parametrize("method", ["kd", "hint", "ctkd"])
def test_a_run_goes_on_from_the_state_of_a_cohort_and_a_cohort_from_those_of_runs(bench, tmp_path, method):
    settings = configs(method)
    cohort = cohort_of(bench, settings)
    run(cohort, 1)
    for place in range(3):
        cohort.save(place, tmp_path / f"{place}.safetensors", tmp_path / f"best{place}.safetensors")
    trainings = [bench.training(config, 1, tmp_path / f"{n}.safetensors") for n, config in enumerate(settings)]
    assert [training.epoch for training in trainings] == [1, 1, 1]
    whole = [alone(bench, config) for config in settings]
    for training, uninterrupted in zip(trainings, whole, strict=True):
        run(training, 1)
        run(uninterrupted, 2)
    for n, training in enumerate(trainings):
        training.save(tmp_path / f"{n}.safetensors")
    # In another order, and without one of them.
    later = cohort_of(bench, [settings[2], settings[0]])
    for place, n in enumerate((2, 0)):
        later.load(place, tmp_path / f"{n}.safetensors")
    assert later.epoch == 2
    run(later, 1)
    for place, n in enumerate((2, 0)):
        run(whole[n], 1)
        assert_equal_runs(later, place, whole[n])


def test_the_best_weights_of_a_member_are_the_file_of_a_run(bench, tmp_path):
    settings = configs("kd", 2)
    cohort, training = cohort_of(bench, settings), alone(bench, settings[1])
    run(cohort, 2)
    run(training, 2)
    cohort.save(1, tmp_path / "a.safetensors", tmp_path / "best a.safetensors")
    training.save(tmp_path / "b.safetensors", tmp_path / "best b.safetensors")
    for a, b in (("a", "b"), ("best a", "best b")):
        ours, theirs = (weights.load(tmp_path / f"{name}.safetensors") for name in (a, b))
        assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in theirs.items()}
        paths = [tmp_path / f"{name}.safetensors" for name in (a, b)]
        assert weights.metadata(paths[0]).keys() == weights.metadata(paths[1]).keys()


def test_members_of_different_epochs_are_refused(bench, tmp_path):
    settings = configs("kd", 2)
    training = alone(bench, settings[0])
    run(training, 1)
    training.save(tmp_path / "state.safetensors")
    cohort = cohort_of(bench, settings)
    cohort.load(0, tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match=r"members are at different epochs: \[0, 1\]"):
        cohort.run_epoch()


def test_the_state_of_another_student_is_refused(bench, tmp_path):
    training = alone(bench, {**configs("kd")[0], "width": 0.5})
    run(training, 1)
    training.save(tmp_path / "state.safetensors")
    with pytest.raises(CheckpointError, match="not the state of this run"):
        cohort_of(bench, configs("kd")).load(1, tmp_path / "state.safetensors")


# Divergence


def test_a_member_that_diverges_fails_alone(bench):
    settings = configs("kd")
    settings[1] |= {"lr": 1e20}
    cohort = cohort_of(bench, settings)
    rows = run(cohort, 2)
    error = rows[-1][1]
    assert isinstance(error, DivergedError)
    with pytest.raises(DivergedError) as expected:
        run(alone(bench, settings[1]), 2)
    assert str(error).split(" became")[0] == str(expected.value).split(" became")[0]
    assert cohort.members[1].failure is error
    cohort.keep([0, 2])
    run(cohort, 1)
    for place, n in enumerate((0, 2)):
        training = alone(bench, settings[n])
        run(training, 3)
        assert_equal_runs(cohort, place, training)
        assert all(math.isfinite(value) for value in cohort.members[place].history[-1].values())


# What trains alone


@pytest.mark.parametrize("method", ALONE)
def test_methods_for_one_student_are_refused(bench, method):
    config = {"method": method, "width": 0.25, "lr": 1e-3, "alpha": 0.5}
    assert cohort_key(trial_recipe(bench.spec, config, 1)) is None
    with pytest.raises(ModelError, match="cannot train as one: the method, the optimizer or the loss"):
        cohort_of(bench, [config, config])


def test_optimizers_that_look_at_whole_weights_are_refused(bench):
    alone = [name for name in OPTIMIZERS if not vars(OPTIMIZERS[name]).get("stacks")]
    assert sorted(set(OPTIMIZERS) - set(alone)) == ["adam", "adamw", "amsgrad", "sgd"]
    for name in alone:
        assert cohort_key(trial_recipe(bench.spec, {**KD, "optimizer": name}, 1)) is None


@pytest.mark.parametrize(
    "change",
    [{"width": 0.5}, {"alpha": 0.0}, {"method": "mse"}, {"batch_size": 16}, {"momentum": 0.5},
     {"alpha_schedule": "linear"}, {"label_smoothing": 0.1}],
    ids=str,
)  # fmt: skip
def test_runs_that_differ_in_more_than_members_may_have_different_keys(bench, change):
    config = {**KD, "width": 0.25}
    one, other = (trial_recipe(bench.spec, values, 1) for values in (config, config | change))
    assert cohort_key(one) != cohort_key(other)
    assert cohort_key(one) == cohort_key(trial_recipe(bench.spec, config | {"lr": 0.1, "temperature": 9.0}, 1))
    assert cohort_key(one) != cohort_key(trial_recipe(bench.spec, config, 2))
    with pytest.raises(ModelError, match="they differ in more than members may"):
        cohort_of(bench, [config, config | change])


def test_a_subclass_does_not_inherit_that_it_stacks(bench, monkeypatch):
    class Own(kd.KD):
        pass

    monkeypatch.setattr("kdsweep.methods.base.METHODS.find", lambda name: Own)
    assert cohort_key(trial_recipe(bench.spec, {**KD, "kd.weight": 1.0}, 1)) is None
    assert [name for name in LOSSES if "together" in vars(LOSSES[name])] == ["cross_entropy", "multi_margin"]


def test_the_page_on_gpus_names_what_trains_in_cohorts():
    page = (Path(__file__).parents[2] / "docs" / "gpus.md").read_text()
    assert f"| methods | {', '.join(STACKED)} | the others, and your own unless they declare `stacks` |" in page
    stacking = [name for name in OPTIMIZERS if vars(OPTIMIZERS[name]).get("stacks")]
    assert f"| optimizers | {', '.join(stacking)} | " in page


# Which models stack


class Shuffling(nn.Module):
    """Mixes the channels of members unless its code is known."""

    def __init__(self, mixes: bool):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 5)
        self.mixes = mixes

    def forward(self, images):
        maps = self.first(images)
        maps = maps.flip(1) if self.mixes else -maps
        return self.head(self.second(maps).mean((2, 3)))


def test_code_between_layers_that_mixes_members_is_found():
    spec = InputSpec((3, 8, 8))
    mixing = give("mixing", lambda input_shape, num_classes, width: Shuffling(True))
    plain = give("plain", lambda input_shape, num_classes, width: Shuffling(False))
    assert fault(mixing, spec, 5, 1.0) == "its code between layers mixes the members"
    assert fault(plain, spec, 5, 1.0) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].takes == "images"])
def test_every_built_in_model_for_images_stacks(name):
    assert fault(name, InputSpec((3, 40, 40)), 7, 0.25) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "reason"),
    [
        ("torchvision/mobilenet_v2", 0.25, ""),
        ("torchvision/mobilenet_v3_small", 0.25, ""),
        ("torchvision/mnasnet0_5", 0.5, ""),
        ("torchvision/efficientnet_b0", 0.25, ""),
        ("torchvision/resnet18", 1, ""),
        ("torchvision/regnet_y_400mf", 1, ""),
        ("torchvision/shufflenet_v2_x0_5", 0.5, "its code between layers mixes the members"),
        ("torchvision/convnext_tiny", 1, "layer features.0.1 (LayerNorm2d) has no rule for several members"),
    ],
)
def test_models_of_torchvision_stack_or_say_why_not(name, width, reason):
    assert fault(name, InputSpec((3, 64, 64)), 7, width) == reason


def test_a_layer_that_is_used_twice_is_refused():
    shared = nn.Linear(4, 4)
    with pytest.raises(StackError, match="layers 0 and 2 are one"):
        stack(nn.Sequential(shared, nn.ReLU(), shared), 2, torch.zeros(2, 4))


def test_the_first_layer_may_be_any(bench):
    """Grouped convolutions, norms and dropout of the input that members share."""
    batch = torch.randn(5, 4, 6, 6)
    for first in (nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Dropout(0.5)):
        model = nn.Sequential(first, nn.Flatten(), nn.LazyLinear(3))
        model(batch)
        model.train()
        torch.manual_seed(3)
        expected = model(batch)
        stacked = stack(model, 3, batch)
        torch.manual_seed(3)
        for logits in stacked.train()(batch):
            torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_cohort_leaves_no_memory_behind(bench):
    """Without waiting for the garbage collector, which a GPU's memory cannot."""
    gc.collect()
    gc.disable()
    try:
        cohort = cohort_of(bench, configs("cosine"))
        run(cohort, 1)
        cohort.keep([0, 1])
        run(cohort, 1)
        weight = weakref.ref(next(cohort._student.model.parameters()))
        direction = weakref.ref(cohort._updates._directions[0])
        del cohort
        assert (weight(), direction()) == (None, None)
    finally:
        gc.enable()


def test_a_cohort_is_made_of_recipes(bench):
    """The class itself is public: no workbench is needed."""
    recipes = [trial_recipe(bench.spec, config, 1) for config in configs("none", 2)]
    cohort = Cohort(recipes, bench.data, bench.train, bench.val, bench.source(recipes[0]))
    rows = cohort.run_epoch()
    training = Training(recipes[1], bench.data, bench.train, bench.val, bench.source(recipes[1]))
    assert rows[1].keys() == training.run_epoch().keys()
    assert rows[1]["epoch"] == 1
