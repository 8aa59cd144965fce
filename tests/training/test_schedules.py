"""Schedules over a training: what alpha and the temperature are at each point of it, and who draws one."""

from __future__ import annotations

import math

import optuna
import pytest
import torch

from kdsweep import methods
from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.methods import METHODS, Outputs, softens
from kdsweep.search.parsing import SpaceError
from kdsweep.search.space import SearchSpace
from kdsweep.seeds import derived_seed
from kdsweep.tasks.image.batches import Images
from kdsweep.tasks.image.splits import PreparedData
from kdsweep.training.recipe import Recipe
from kdsweep.training.section import OptimizationSpec
from kdsweep.training.shapes import SHAPES, Factor, remaining
from kdsweep.training.trainer import Training

CPU = torch.device("cpu")
SPACE = {
    "method": ["kd", "kd+at", "hint", "crd", "none"],
    "alpha": 0.5,
    "alpha_schedule": {"choice": list(SHAPES)},
    "temperature_schedule": {"choice": list(SHAPES)},
}


@pytest.mark.parametrize(
    ("shape", "values"),
    [("constant", (1, 1, 1, 1)), ("linear", (1, 0.75, 0.5, 0)), ("cosine", (1, 0.853553, 0.5, 0))],
)
def test_what_remains_at_the_start_a_quarter_half_and_the_end(shape, values):
    found = [remaining(shape, progress) for progress in (0, 0.25, 0.5, 1)]
    assert found == pytest.approx(values, abs=1e-6)
    factor = Factor(shape, CPU)
    for progress, value in zip((0, 0.25, 0.5, 1), values, strict=True):
        factor.advance(progress)
        assert float(factor.value) == pytest.approx(value, abs=1e-6)


def test_the_learning_rate_falls_along_the_same_cosine():
    optimization = OptimizationSpec(epochs=4, schedule="cosine")
    assert [optimization.make_schedule().factor(progress) for progress in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert OptimizationSpec(epochs=4, schedule="constant").make_schedule().factor(0.7) == 1
    step = OptimizationSpec(epochs=4, schedule="step", milestones=[2, 3], gamma=0.1)
    assert [step.make_schedule().factor(progress) for progress in (0.49, 0.5, 0.75)] == pytest.approx([1, 0.1, 0.01])


@pytest.mark.parametrize("name", [name for name in METHODS if softens(name)])
def test_a_temperature_is_taken_from_its_value_to_1(name):
    given = [Outputs(torch.randn(6, 5, generator=torch.Generator().manual_seed(s)), torch.zeros(6, 2)) for s in (1, 2)]
    labels = torch.arange(6) % 5
    cooled = methods.create(name, *given, temperature=5.0)
    factor = Factor("linear", CPU)
    cooled.cool(factor.value)
    for progress, temperature in ((0.0, 5.0), (0.5, 3.0), (1.0, 1.0)):
        factor.advance(progress)
        assert float(cooled.temperature) == pytest.approx(temperature)
        expected = methods.create(name, *given, temperature=temperature)(*given, labels)
        torch.testing.assert_close(cooled(*given, labels), expected)


def test_a_sum_cools_every_term():
    given = [Outputs(torch.randn(6, 5), torch.zeros(6, 2)) for _ in range(2)]
    total = methods.create("kd+dkd", *given, **{"kd.temperature": 9.0, "dkd.temperature": 3.0})
    total.cool(torch.tensor(0.5))
    assert [float(part.temperature) for part in total.parts.values()] == [5.0, 2.0]


def test_the_temperature_of_a_contrast_is_left_alone():
    given = [Outputs(torch.randn(6, 5), torch.randn(6, 4)) for _ in range(2)]
    method = methods.create("crd", *given, temperature=0.5)
    method.cool(torch.tensor(0.0))
    assert method.temperature == 0.5


def draws(space: SearchSpace, count: int = 150) -> list[dict]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_schedules_are_drawn_only_where_there_is_something_to_schedule():
    found: dict[str, set[str]] = {}
    for config in draws(SearchSpace.parse(SPACE)):
        found.setdefault(config["method"], set()).update(key for key in config if key.endswith("_schedule"))
    assert found == {
        "kd": {"alpha_schedule", "temperature_schedule"},
        "kd+at": {"alpha_schedule", "temperature_schedule"},
        "hint": {"alpha_schedule"},
        "crd": {"alpha_schedule"},
        "none": set(),
    }


def test_a_schedule_that_is_not_searched_is_no_column_and_a_wrong_one_is_refused():
    assert not [key for key in SearchSpace.parse({"method": ["kd"]}).keys() if key.endswith("_schedule")]  # noqa: SIM118
    with pytest.raises(SpaceError, match="found 'step'; accepted: constant, linear, cosine"):
        SearchSpace.parse({"method": ["kd"], "alpha_schedule": "step"})


def test_a_configuration_tells_its_schedules_to_the_recipe():
    spec = SweepSpec.model_validate(
        {"name": "s", "dataset": {"name": "mnist_mini"}, "teacher": {"model": "mnist_teacher"},
         "student": {"model": "mnist_student"}, "space": SPACE}
    )  # fmt: skip
    for config in draws(spec.search_space, 40):
        recipe = trial_recipe(spec, {**config, "lr": 1e-3}, seed=0)
        assert recipe.alpha_schedule == config.get("alpha_schedule", "constant")
        assert recipe.temperature_schedule == config.get("temperature_schedule", "constant")


class Toy:
    """A teacher whose logits are fixed for each sample."""

    def __init__(self, count: int):
        self.logits = 3 * torch.randn(count, 10, generator=torch.Generator().manual_seed(5))

    def example(self):
        return Outputs(self.logits[:2], torch.zeros(2, 3))

    def epoch(self, epoch, view):
        return lambda index, images: Outputs(self.logits[index], images.new_zeros(len(index), 3))


def training(tmp_path, **changes) -> Training:
    draw = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (24, 1, 8, 8), generator=draw, dtype=torch.uint8)
    split = Images(images, torch.randint(0, 10, (24,), generator=draw), (0.5,), (0.5,))
    data = PreparedData(tmp_path, "toy", (1, 8, 8), tuple("0123456789"), (0.5,), (0.5,))
    settings = {
        "model": "mnist_student", "width": 0.25, "options": {}, "seed": 1, "view_seed": 1, "augment": "none",
        "optimization": OptimizationSpec(epochs=4, batch_size=8, schedule="constant", optimizer="sgd", lr=0.05),
        "method": "kd", "method_params": {"temperature": 4.37}, "alpha": 0.83,
    }  # fmt: skip
    return Training(Recipe(**{**settings, **changes}), data, split, split, Toy(24))


def curve(run: Training) -> list[float]:
    losses = []
    while not run.done:
        losses.append(run.run_epoch()["train_loss"])
    return losses


def by_hand(run: Training, alpha_at, temperature_at) -> list[float]:
    """The curve of a run, its loss written out for each step."""
    losses, student, split = [], run.student, run._train
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(4):
        run.epoch = epoch + 1
        order = torch.randperm(
            24, generator=torch.Generator().manual_seed(derived_seed(run.recipe.seed, "order", run.epoch))
        )
        student.train()
        total = 0.0
        for step, index in enumerate(order.split(8)):
            progress = (epoch + step / 3) / 4
            alpha, temperature = alpha_at(progress), temperature_at(progress)
            logits = student(split.batch(index))
            task = torch.nn.functional.cross_entropy(logits, split.labels[index])
            p, q = (z.div(temperature).log_softmax(1) for z in (run._teacher.logits[index], logits))
            term = temperature**2 * (p.exp() * (p - q)).sum() / 8
            loss = (1 - alpha) * task + alpha * term
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / 3
        losses.append(total)
    return losses


@pytest.mark.parametrize("alpha_schedule", SHAPES)
@pytest.mark.parametrize("temperature_schedule", SHAPES)
def test_a_curve_is_the_one_written_out_by_hand(tmp_path, alpha_schedule, temperature_schedule):
    share = {
        "constant": lambda progress: 1.0,
        "linear": lambda progress: 1 - progress,
        "cosine": lambda progress: math.cos(math.pi * progress / 2) ** 2,
    }
    schedules = {"alpha_schedule": alpha_schedule, "temperature_schedule": temperature_schedule}
    expected = by_hand(
        training(tmp_path),
        lambda progress: 0.83 * share[alpha_schedule](progress),
        lambda progress: 1 + 3.37 * share[temperature_schedule](progress),
    )
    assert curve(training(tmp_path, **schedules)) == pytest.approx(expected, rel=1e-4)


def test_constant_schedules_leave_numbers_as_they_are(tmp_path):
    run = training(tmp_path)
    assert run.method.temperature == 4.37
    assert type(run.method.temperature) is float
    assert type(run._alpha.value) is float


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "amsgrad"])
@pytest.mark.parametrize("method", ["kd", "kd+dkd"])
def test_a_scheduled_run_goes_on_bit_for_bit(tmp_path, method, optimizer):
    changes = {
        "method": method, "method_params": {}, "alpha_schedule": "cosine", "temperature_schedule": "linear",
        "optimization": OptimizationSpec(epochs=4, batch_size=8, optimizer=optimizer, lr=0.01),
    }  # fmt: skip
    expected = curve(training(tmp_path, **changes))
    half = training(tmp_path, **changes)
    found = [half.run_epoch()["train_loss"] for _ in range(2)]
    half.save(tmp_path / "state.safetensors", tmp_path / "best.safetensors")
    resumed = training(tmp_path, **changes)
    resumed.load(tmp_path / "state.safetensors")
    assert found + curve(resumed) == expected


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_scheduled_step_does_not_wait_for_a_gpu():
    device = torch.device("cuda")
    factor = Factor("cosine", device)
    given = [Outputs(torch.randn(6, 5, device=device), torch.zeros(6, 2, device=device)) for _ in range(2)]
    method = methods.create("kd", *given).to(device)
    method.cool(factor.value)
    labels = torch.arange(6, device=device) % 5
    method(*given, labels)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        factor.advance(0.5)
        term = method(*given, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert term.isfinite()
