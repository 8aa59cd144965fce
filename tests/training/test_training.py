"""One student's training: the formula, the schedules, and that a run goes on as if it had never stopped."""

from __future__ import annotations

import gc
import hashlib
import math

import pytest
import torch
from inputs import CHECKPOINT, refused
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from kdsweep import methods, models
from kdsweep.config.recipes import method_params, trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import CheckpointError
from kdsweep.tasks.image.batches import Images
from kdsweep.tasks.image.splits import prepare
from kdsweep.tasks.metrics import METRICS
from kdsweep.teacher import build as teachers
from kdsweep.teacher.outputs import TeacherInLoop
from kdsweep.training.evaluate import evaluate
from kdsweep.training.precision import autocast_dtype
from kdsweep.training.section import OptimizationSpec
from kdsweep.training.teaching import NoTeacher
from kdsweep.training.trainer import DivergedError, Training
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")
USUAL = {name: METRICS[name] for name in ("accuracy", "loss")}
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
    spec = bench.spec.replaced(
        train=train_spec, student=bench.spec.student.model_copy(update={"model": "mnist_student"})
    )
    return Workbench(spec, bench.sweep, bench.data, bench._card, CPU).training(config, seed, bench.sweep.root / "none")


def curve(training, until=99):
    """Metrics by epoch, without the time they took."""
    epochs = []
    while not training.done and training.epoch < until:
        metrics = training.run_epoch()
        metrics.pop("seconds")
        epochs.append(metrics)
    return epochs


def fresh(bench, config, seed=1):
    return bench.training(config, seed, bench.sweep.root / "no such state")


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


def test_a_sum_weighs_each_of_its_terms(bench):
    config = {"method": "kd+at", "width": 0.5, "lr": 0.1, "alpha": 0.4, "temperature": 2.0, "kd.weight": 3.0,
              "at.weight": 50.0}  # fmt: skip
    training = one_batch(bench, config)
    images = bench.train.normalised(bench.train.images)
    student = training._tapped(images)
    teacher = bench.teacher.outputs(images)
    attention = methods.create("at", student, teacher)(student, teacher, bench.train.labels)
    task = F.cross_entropy(student.logits, bench.train.labels)
    distilled = 3 * kl(student.logits, teacher.logits, 2.0) + 50 * attention
    assert training.run_epoch()["train_loss"] == pytest.approx((0.6 * task + 0.4 * distilled).item(), rel=1e-5)


def test_label_smoothing_moves_a_share_of_each_label_to_all_classes(bench):
    training = one_batch(bench, {"method": "none", "width": 0.5, "lr": 0.1, "label_smoothing": 0.2})
    logits = training.student(bench.train.normalised(bench.train.images)).detach().double()
    targets = F.one_hot(bench.train.labels, 10) * 0.8 + 0.2 / 10
    expected = -(targets * torch.log_softmax(logits, 1)).sum(1).mean()
    assert training.run_epoch()["train_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_multi_margin_replaces_the_cross_entropy(bench):
    training = one_batch(bench, {"method": "none", "width": 0.5, "lr": 0.1}, task_loss="multi_margin")
    logits, labels = training.student(bench.train.normalised(bench.train.images)).detach(), bench.train.labels
    margins = (1 - logits[torch.arange(len(labels)), labels][:, None] + logits).clamp(min=0)
    margins[torch.arange(len(labels)), labels] = 0
    assert training.run_epoch()["train_loss"] == pytest.approx((margins.sum(1) / 10).mean().item(), rel=1e-5)


def test_a_searched_temperature_goes_to_every_term_that_softens_and_to_no_other():
    shared = {"method": "kd+dkd+crd", "temperature": 3.0, "kd.weight": 2.0}
    assert method_params(shared) == {"kd.temperature": 3.0, "dkd.temperature": 3.0, "kd.weight": 2.0}
    assert method_params({"method": "kd", "temperature": 3.0, "alpha": 0.5}) == {"temperature": 3.0}
    own = {"method": "kd+dkd", "temperature": 3.0, "kd.temperature": 8.0}
    assert method_params(own) == {"kd.temperature": 8.0, "dkd.temperature": 3.0}
    assert method_params({"method": "dkd", "dkd.beta": 2.0, "lr": 0.1}) == {"beta": 2.0}


# Schedules


def test_cosine_falls_from_one_to_zero_by_half_a_cosine():
    cosine = OptimizationSpec(schedule="cosine", epochs=10)
    factors = [cosine.make_schedule().factor(progress) for progress in (0, 1 / 4, 1 / 2, 3 / 4, 1)]
    assert factors == pytest.approx([1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0])


def test_step_multiplies_by_gamma_from_each_milestone_on():
    step = OptimizationSpec(schedule="step", epochs=10, milestones=[3, 7], gamma=0.1)
    by_epoch = [step.make_schedule().factor(epoch / 10) for epoch in range(10)]
    assert by_epoch == pytest.approx([1] * 3 + [0.1] * 4 + [0.01] * 3)
    assert step.make_schedule().factor(2.99 / 10) == 1


def test_constant_stays():
    assert {OptimizationSpec(schedule="constant").make_schedule().factor(p) for p in (0, 0.5, 1)} == {1.0}


def test_the_horizon_of_the_rate_is_the_whole_budget_step_by_step(bench):
    training = fresh(bench, {"method": "none", "width": 0.25, "lr": 0.002})
    steps = math.ceil(len(bench.train) / 32)
    last = [(epoch - 1 / steps) / 3 for epoch in (1, 2, 3)]
    expected = [0.002 * 0.5 * (1 + math.cos(math.pi * progress)) for progress in last]
    assert [metrics["lr"] for metrics in curve(training)] == pytest.approx(expected)


# Resuming


@pytest.mark.parametrize(
    ("config", "sections"),
    [
        pytest.param(KD, {}, id="dropout"),
        pytest.param(HINT, {}, id="adapters"),
        pytest.param(KD, {"dataset": {"augment": "crop_flip"}}, id="augmentation"),
        pytest.param(HINT | {"method": "crd", "crd.negatives": 64, "crd.dim": 16}, {}, id="memory"),
        pytest.param(HINT | {"method": "simkd"}, {}, id="head"),
        pytest.param(HINT | {"method": "simkd", "ema_decay": 0.9}, {}, id="averaged head"),
        pytest.param(HINT | {"method": "ctkd"}, {}, id="trained temperature"),
        pytest.param(KD, {"student": {"model": "resnet", "options": {"depth": 8}}}, id="batch normalisation"),
        pytest.param(KD | {"lr": 0.03}, {"train": {"optimizer": "sgd"}}, id="momentum"),
        pytest.param(KD, {"train": {"optimizer": "amsgrad", "schedule": "step", "milestones": [2]}}, id="amsgrad"),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(config, sections, storage, tmp_path):
    bench = open_bench(written(storage, **sections))
    whole = fresh(bench, config)
    expected = curve(whole)
    before = fresh(bench, config)
    begun = curve(before, until=2)
    before.save(tmp_path / "state.safetensors", tmp_path / "best.safetensors")
    del before
    after = bench.training(config, 1, tmp_path / "state.safetensors")
    assert after.epoch == 2
    assert begun + curve(after) == expected
    assert (after.best_epoch, after.best_value) == (whole.best_epoch, whole.best_value)
    for whose in (lambda t: t.inference.state_dict(), lambda t: t.method.state_dict(), lambda t: t._best):
        assert_same(dict(whose(after)), dict(whose(whole)))
    assert_same(after._optimizer.state_dict(), whole._optimizer.state_dict())


def test_the_best_weights_survive_an_interruption(bench, tmp_path):
    training = fresh(bench, KD)
    best = max(metrics["val_accuracy"] for metrics in curve(training, until=2))
    training.save(tmp_path / "state.safetensors", tmp_path / "best.safetensors")
    resumed = bench.training(KD, 1, tmp_path / "state.safetensors")
    resumed.restore_best()
    assert evaluate(resumed.inference, bench.val, USUAL)["accuracy"] == best
    assert_same(load_file(tmp_path / "best.safetensors"), dict(resumed.inference.state_dict()))


def damage(kind, path):
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(b"\x00garbage" * 1000)
    elif kind == "no counters":
        save_file(load_file(path), path)
    elif kind == "a tensor lost":
        tensors = load_file(path)
        tensors.pop(next(name for name in tensors if name.startswith("student/")))
        save_file(tensors, path, {"kdsweep": '{"epoch": 1, "best_accuracy": 0.5, "best_epoch": 1}'})


@pytest.mark.parametrize("kind", ["truncated", "empty", "garbage", "no counters", "a tensor lost"])
def test_a_damaged_state_file_is_refused_in_one_line(kind, bench, tmp_path):
    state = tmp_path / "state.safetensors"
    training = fresh(bench, KD)
    training.run_epoch()
    training.save(state, tmp_path / "best.safetensors")
    damage(kind, state)
    with refused(CHECKPOINT, CheckpointError) as caught:
        fresh(bench, KD).load(state)
    assert str(state) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_state_of_another_run_is_refused(bench, tmp_path):
    other = fresh(bench, HINT)
    other.run_epoch()
    other.save(tmp_path / "state.safetensors", tmp_path / "best.safetensors")
    with refused(CHECKPOINT, CheckpointError, match="not the state of this run"):
        fresh(bench, KD | {"width": 0.25}).load(tmp_path / "state.safetensors")


def test_a_run_whose_state_is_damaged_begins_again_with_the_same_curve(bench, tmp_path):
    state = tmp_path / "state.safetensors"
    training = fresh(bench, KD)
    begun = curve(training, until=1)
    training.save(state, tmp_path / "best.safetensors")
    damage("truncated", state)
    again = bench.training(KD, 1, state)
    assert again.epoch == 0
    assert curve(again, until=1) == begun


# Nothing leaks


def test_the_same_recipe_gives_the_same_curve_and_another_seed_another(bench):
    first = fresh(bench, KD)
    expected = curve(first)
    again = fresh(bench, KD)
    assert curve(again) == expected
    assert_same(dict(again.student.state_dict()), dict(first.student.state_dict()))
    assert curve(fresh(bench, KD, seed=2)) != expected


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_what_ran_before_or_beside_a_trial_does_not_change_it(augment, storage, tmp_path):
    spec = written(storage, dataset={"augment": augment})
    plain = HINT | {"method": "none"}
    alone = [curve(fresh(open_bench(spec), config)) for config in (KD, HINT, plain)]
    bench = open_bench(spec)
    after_another = [curve(fresh(bench, config)) for config in (plain, HINT, KD)]
    assert after_another[::-1] == alone
    beside = [fresh(bench, config) for config in (KD, HINT, plain)]
    stepped = [[curve(training, until=epoch)[0] for training in beside] for epoch in (1, 2, 3)]
    assert [list(epochs) for epochs in zip(*stepped, strict=True)] == alone


def teacher_of(storage, tmp_path):
    """A small network with batch normalisation, loaded as a sweep's teacher is."""
    from kdsweep.storage import weights

    spec = written(storage, teacher={"model": "resnet", "options": {"depth": 8}, "checkpoint": None})
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    torch.manual_seed(3)
    section = spec.teacher
    teacher = models.build(section.model, data.input_spec, data.num_classes, section.width, **section.options)
    weights.save(teacher.state_dict(), tmp_path / "teacher.safetensors")
    return spec, data, teachers.load(spec, data, tmp_path / "teacher.safetensors", CPU)


def digest(model):
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())).hexdigest()


@pytest.mark.parametrize("method", ["kd", "hint", "at", "simkd", "crd"])
def test_training_leaves_the_teacher_as_it_was_and_in_eval(method, storage, tmp_path):
    spec, data, tapped = teacher_of(storage, tmp_path)
    before = digest(tapped.model)
    recipe = trial_recipe(spec, HINT | {"method": method}, 1)
    source = TeacherInLoop(tapped, data.input_spec, CPU)
    training = Training(recipe, data, data.split("train", CPU), data.split("val", CPU), source)
    curve(training, until=2)
    assert digest(tapped.model) == before
    assert not any(module.training for module in tapped.model.modules())
    assert not any(parameter.requires_grad for parameter in tapped.model.parameters())
    assert all(parameter.grad is None for parameter in tapped.model.parameters())


def test_a_trial_leaves_no_tensor_behind_in_its_worker(storage):
    bench = open_bench(written(storage))

    def living():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    counts = []
    for number in range(6):
        training = bench.training(HINT if number % 2 else KD, number, storage / "none")
        training.run_epoch()
        del training
        counts.append(living())
    assert counts[2:] == [counts[2]] * 4


def test_the_student_is_back_in_train_mode_after_each_evaluation(bench):
    training = fresh(bench, KD)
    modes = []
    training.student.classifier[2].register_forward_hook(lambda module, *rest: modes.append(module.training))
    curve(training)
    steps = math.ceil(len(bench.train) / 32)
    assert modes == ([True] * steps + [False]) * 3


def test_dropout_drops_others_in_every_epoch_and_step(bench):
    training = fresh(bench, KD)
    seen = []
    training.student.classifier[2].register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0] != 0, output == 0)) if module.training else None
    )
    curve(training, until=2)
    (alive, dropped), *others = seen
    assert 0 < dropped[alive].float().mean() < 0.25
    for other_alive, other_dropped in (others[0], others[len(seen) // 2 - 1]):  # the next step, the next epoch
        both = alive & other_alive
        assert both.any()
        assert not torch.equal(dropped[both], other_dropped[both])


def test_adapters_are_trained_with_the_student(bench):
    training = fresh(bench, HINT)
    before = {name: tensor.clone() for name, tensor in training.method.state_dict().items()}
    training.run_epoch()
    assert before.keys() == {"weight", "bias"}
    assert not any(torch.equal(tensor, before[name]) for name, tensor in training.method.state_dict().items())


# The edges


@pytest.mark.parametrize(("count", "sizes"), [(65, [32, 32]), (66, [32, 32, 2]), (64, [32, 32]), (1, [1])])
def test_a_last_batch_of_one_is_dropped(count, sizes, bench):
    train = Images(bench.train.images[:count], bench.train.labels[:count], (0.0,), (1.0,))
    recipe = trial_recipe(bench.spec, {"method": "none", "width": 0.25, "lr": 1e-3}, 1)
    training = Training(recipe, bench.data, train, bench.val, NoTeacher(CPU))
    seen = []
    training.student.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, len(inputs[0]))))
    training.run_epoch()
    assert [size for mode, size in seen if mode] == sizes


def test_batches_of_one_are_trained_on_where_they_were_asked_for(bench):
    recipe = trial_recipe(bench.spec, {"method": "none", "width": 0.25, "lr": 1e-3, "batch_size": 1}, 1)
    training = Training(recipe, bench.data, bench.train, bench.val, NoTeacher(CPU))
    assert math.isfinite(training.run_epoch()["train_loss"])


def test_every_image_is_seen_once_an_epoch_in_an_order_of_its_own(bench):
    positions = torch.arange(80, dtype=torch.uint8)[:, None, None, None].expand(80, 1, 28, 28).contiguous()
    train = Images(positions, bench.train.labels, (0.0,), (1 / 255,))
    recipe = trial_recipe(bench.spec, {"method": "none", "width": 0.25, "lr": 1e-3}, 1)
    training = Training(recipe, bench.data, train, bench.val, NoTeacher(CPU))
    seen = []
    training.student.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0][:, 0, 0, 0].round().int().tolist()) if module.training else None
    )
    curve(training, until=2)
    first, second = ([place for batch in seen[start : start + 3] for place in batch] for start in (0, 3))
    assert sorted(first) == sorted(second) == list(range(80))
    assert first != second
    assert first != sorted(first)


def test_a_loss_that_is_no_number_ends_the_run_in_one_line(storage):
    bench = open_bench(written(storage, train={"optimizer": "sgd"}))
    with pytest.raises(DivergedError, match=r"^the training loss became (nan|inf) in epoch [1-3]$"):
        curve(fresh(bench, KD | {"lr": 1e9}))


def test_the_weights_of_the_best_epoch_come_back(storage):
    bench = open_bench(written(storage, train={"epochs": 8, "optimizer": "sgd", "schedule": "constant"}))
    training = fresh(bench, KD | {"lr": 0.2})
    accuracies = [metrics["val_accuracy"] for metrics in curve(training)]
    assert accuracies[-1] < max(accuracies)
    assert training.best_epoch == accuracies.index(max(accuracies)) + 1
    training.restore_best()
    assert evaluate(training.inference, bench.val, USUAL)["accuracy"] == max(accuracies) == training.best_value


def test_evaluation_counts_right_answers_and_averages_the_cross_entropy(bench):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10), torch.nn.Dropout(0.9))
    images = Images(bench.val.images[:70], bench.val.labels[:70], (0.5,), (0.25,))
    pixels = (images.images.double() / 255 - 0.5) / 0.25
    logits = pixels.flatten(1) @ model[1].weight.detach().double().T + model[1].bias.detach().double()
    right = (logits.argmax(1) == images.labels).double().mean().item()
    loss = -torch.log_softmax(logits, 1)[torch.arange(70), images.labels].mean().item()
    assert evaluate(model, images, USUAL) == {"accuracy": pytest.approx(right), "loss": pytest.approx(loss, rel=1e-5)}


def test_bfloat16_trains_near_float32_and_is_judged_in_float32(storage):
    curves = {}
    for precision in ("float32", "bfloat16"):
        training = fresh(open_bench(written(storage, train={"precision": precision})), HINT)
        curves[precision] = curve(training)
        assert {tensor.dtype for tensor in training.student.parameters()} == {torch.float32}
    losses = {precision: [metrics["train_loss"] for metrics in epochs] for precision, epochs in curves.items()}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.03)
    assert autocast_dtype("auto") is torch.float32
