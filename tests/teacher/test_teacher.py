"""The teacher is made once, stored by content hash and checked, and its checkpoint never runs code."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdsweep import models
from kdsweep.config.spec import SweepSpec
from kdsweep.datasets import embedded
from kdsweep.errors import CheckpointError, TeacherError
from kdsweep.storage import weights
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks.image.splits import PreparedData, prepare
from kdsweep.tasks.metrics import METRICS
from kdsweep.teacher import build as teacher
from kdsweep.teacher.build import TeacherCard, judge, teacher_digest
from kdsweep.training import trainer as training
from kdsweep.training.evaluate import evaluate
from kdsweep.training.trainer import on_device
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")
SHIPPED = embedded.path("mnist_mini_teacher.safetensors")
LOADED = {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"}
TRAINED = {"model": "mnist_student", "train": {"epochs": 3, "batch_size": 32, "lr": 3e-3}}


def written(root, teacher=LOADED, **sections):
    values = {
        "name": "small",
        "dataset": {"name": "mnist_mini", "subset": 400, "val_fraction": 0.5},
        "teacher": teacher,
        "student": {"model": "mnist_student"},
        "space": {"method": ["kd", "none"]},
        "storage": str(root),
    }
    return SweepSpec.model_validate(values | sections)


def provide(spec, epochs=None):
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    return provide_teacher(spec, spec.sweep_dir, data, CPU, (epochs if epochs is not None else []).append)


def bench_of(spec):
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    return Workbench(spec, spec.sweep_dir, data, provide(spec), CPU)


def refused(spec, kind=CheckpointError):
    """Return the one-line error that the teacher phase raises."""
    with pytest.raises(kind) as caught:
        provide(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def measured(model, val):
    """Return every metric, named as on a teacher's card."""
    found = evaluate(model, val, {name: METRICS[name] for name in METRICS})
    return {f"val_{name}": value for name, value in found.items()}


# Made once


def test_a_teacher_is_trained_once_for_all_sweeps_of_a_storage(tmp_path):
    epochs, again = [], []
    first = provide(written(tmp_path, TRAINED), epochs)
    assert [metrics["epoch"] for metrics in epochs] == [1, 2, 3]
    assert epochs[-1]["val_accuracy"] == first.measured["val_accuracy"]
    second = provide(written(tmp_path, TRAINED, name="second", space={"method": "none"}), again)
    assert again == []
    assert second == first
    small, other = SweepDir(tmp_path / "small"), SweepDir(tmp_path / "second")
    assert small.teacher_weights.read_bytes() == other.teacher_weights.read_bytes()
    assert TeacherCard.read(other.teacher_card) == first


def test_a_sweep_is_self_contained_without_the_store(tmp_path):
    spec = written(tmp_path, TRAINED)
    card = provide(spec)
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    val = data.split("val", CPU)
    shutil.rmtree(spec.sweep_dir.store.root / "teachers")
    tapped = teacher.load(spec, data, spec.sweep_dir.teacher_weights, CPU)
    assert measured(tapped.model, val) == card.measured


@pytest.mark.parametrize("damaged", ["model.safetensors", "teacher.json"])
@pytest.mark.parametrize("where", ["store", "sweep", "both"])
def test_a_truncated_teacher_is_restored_from_the_other_copy_or_made_again(damaged, where, tmp_path):
    spec = written(tmp_path, TRAINED)
    card, epochs = provide(spec), []
    whole = spec.sweep_dir.teacher_weights.read_bytes()
    folders = {"store": [spec.sweep_dir.store.teacher(card.digest)], "sweep": [spec.sweep_dir.teacher]}
    for folder in folders.get(where) or [*folders["store"], *folders["sweep"]]:
        (folder / damaged).write_bytes((folder / damaged).read_bytes()[:-10])
    assert provide(spec, epochs) == card
    assert len(epochs) == (3 if where == "both" else 0)
    assert spec.sweep_dir.teacher_weights.read_bytes() == whole


def test_a_truncated_example_of_the_teachers_outputs_is_made_again(tmp_path):
    bench = bench_of(written(tmp_path, TRAINED))
    logits, path = bench.example.logits, SweepDir(tmp_path / "small").teacher_example
    path.write_bytes(path.read_bytes()[:-10])
    assert torch.equal(bench_of(written(tmp_path, TRAINED)).example.logits, logits)


def test_a_sweep_continues_with_its_own_teacher_if_the_checkpoint_and_the_store_are_missing(tmp_path):
    checkpoint = tmp_path / "teacher.safetensors"
    shutil.copyfile(SHIPPED, checkpoint)
    spec = written(tmp_path, LOADED | {"checkpoint": str(checkpoint)})
    card = provide(spec)
    checkpoint.unlink()
    shutil.rmtree(spec.sweep_dir.store.root / "teachers")
    assert provide(spec) == card


def test_an_interrupted_teacher_resumes_from_its_last_saved_epoch_and_gets_the_same_weights(tmp_path, monkeypatch):
    whole = provide(written(tmp_path / "whole", TRAINED))
    spec, epochs = written(tmp_path / "cut", TRAINED), []
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)

    def interrupt(metrics):
        if metrics["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provide_teacher(spec, spec.sweep_dir, data, CPU, interrupt)
    assert provide(spec, epochs) == whole
    assert [metrics["epoch"] for metrics in epochs] == [3]
    assert_equal(*(load_file(SweepDir(tmp_path / name / "small").teacher_weights) for name in ("whole", "cut")))
    assert not list(tmp_path.rglob("state.safetensors"))


def test_the_same_sweep_elsewhere_trains_the_same_teacher(tmp_path):
    cards = [provide(written(tmp_path / name, TRAINED)) for name in ("a", "b")]
    assert cards[0] == cards[1]
    assert_equal(*(load_file(SweepDir(tmp_path / name / "small").teacher_weights) for name in ("a", "b")))


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_the_card_describes_the_teacher(tmp_path):
    spec = written(tmp_path)
    bench = bench_of(spec)
    card = provide(spec)
    model = models.build("mnist_teacher", (1, 28, 28), 10, width=0.25)
    model.load_state_dict(load_file(SHIPPED))
    assert card.measured == measured(on_device(model, CPU), bench.val)
    assert card.measured["val_accuracy"] > 0.95
    assert card.parameters == models.count_parameters(model)
    assert card.size_mb == pytest.approx(card.parameters * 4 / 1024**2)
    assert (card.model, card.width, card.origin, card.epochs) == ("mnist_teacher", 0.25, LOADED["checkpoint"], 0)
    trained = provide(written(tmp_path, TRAINED, name="other"))
    assert (trained.model, trained.origin, trained.epochs) == ("mnist_student", "trained", 3)


def digest_of(root, teacher=TRAINED, **sections):
    spec = written(root, teacher, **sections)
    return teacher_digest(spec, prepare(spec.dataset, spec.seed, spec.sweep_dir.store))


def test_settings_that_determine_the_teacher_change_its_digest(tmp_path):
    base = written(tmp_path).dataset.model_dump()
    train = TRAINED["train"]
    digests = [
        digest_of(tmp_path),
        digest_of(tmp_path, TRAINED | {"model": "mnist_teacher"}),
        digest_of(tmp_path, TRAINED | {"width": 0.5}),
        digest_of(tmp_path, TRAINED | {"model": "resnet", "options": {"depth": 8}}),
        digest_of(tmp_path, TRAINED | {"model": "resnet", "options": {"depth": 14}}),
        digest_of(tmp_path, TRAINED | {"train": train | {"epochs": 4}}),
        digest_of(tmp_path, TRAINED | {"train": train | {"lr": 1e-3}}),
        digest_of(tmp_path, seed=1),
        digest_of(tmp_path, dataset=base | {"augment": "flip"}),
        digest_of(tmp_path, dataset=base | {"subset": 300}),
        digest_of(tmp_path, dataset=base | {"normalize": "none"}),
        digest_of(tmp_path, LOADED),
    ]
    assert len(set(digests)) == len(digests)


def test_unrelated_settings_do_not_change_the_teachers_digest(tmp_path):
    base = digest_of(tmp_path)
    assert digest_of(tmp_path, name="other", space={"method": "none"}, student={"model": "lightnn"}) == base
    assert digest_of(tmp_path, TRAINED | {"cache_gb": 0.0}, train={"epochs": 2}) == base
    loaded = digest_of(tmp_path, LOADED)
    dataset = written(tmp_path).dataset.model_dump()
    assert digest_of(tmp_path, LOADED, dataset=dataset | {"augment": "flip"}) == loaded


def test_a_checkpoint_is_identified_by_its_content(tmp_path):
    shutil.copy(SHIPPED, tmp_path / "copy.safetensors")
    copied = LOADED | {"checkpoint": str(tmp_path / "copy.safetensors")}
    base = digest_of(tmp_path, LOADED)
    assert digest_of(tmp_path, copied) == base
    state = load_file(SHIPPED)
    state["fc.bias"][0] += 1
    save_file(state, tmp_path / "copy.safetensors")
    assert digest_of(tmp_path, copied) != base


# Checkpoints

FORMS = {
    "state.safetensors": lambda state, path: save_file(state, path),
    "state.pt": lambda state, path: torch.save(state, path),
    "old.pth": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "wrapped.pt": lambda state, path: torch.save({"state_dict": state, "epoch": 9, "optimizer": {"lr": 0.1}}, path),
    "model.pt": lambda state, path: torch.save({"model": state, "accuracy": 0.99}, path),
    "parallel.pt": lambda state, path: torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_loads_in_every_supported_format(form, tmp_path):
    FORMS[form](load_file(SHIPPED), tmp_path / form)
    expected = provide(written(tmp_path))
    found = provide(written(tmp_path, LOADED | {"checkpoint": str(tmp_path / form)}, name="other"))
    assert found.measured == expected.measured
    assert found.origin == str(tmp_path / form)
    assert_equal(load_file(SweepDir(tmp_path / "other").teacher_weights), load_file(SHIPPED))


class Code:
    """Runs code when it is unpickled unsafely."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("how", ["torch", "old torch", "pickle", "among tensors"])
def test_code_in_a_checkpoint_is_rejected_and_not_run(how, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Code(mark)))
    elif how == "among tensors":
        torch.save(load_file(SHIPPED) | {"fc.bias": Code(mark)}, path)
    else:
        torch.save(Code(mark), path, _use_new_zipfile_serialization=how == "torch")
    message = refused(written(tmp_path, LOADED | {"checkpoint": str(path)}))
    assert f"checkpoint {path}: contains more than tensors, or is not a checkpoint" in message
    assert "; accepted: a .safetensors file" in message
    assert not mark.exists()


def test_a_pickled_model_is_rejected(tmp_path):
    torch.save(models.build("mnist_teacher", (1, 28, 28), 10, width=0.25), tmp_path / "model.pt")
    message = refused(written(tmp_path, LOADED | {"checkpoint": str(tmp_path / "model.pt")}))
    assert "accepted: a .safetensors file, or one written by torch.save(model.state_dict(), ...)" in message


def test_a_checkpoint_with_a_different_number_of_classes_is_rejected(tmp_path):
    model = models.build("mnist_teacher", (1, 28, 28), 7, width=0.25)
    torch.save(model.state_dict(), tmp_path / "seven.pt")
    message = refused(written(tmp_path, LOADED | {"checkpoint": str(tmp_path / "seven.pt")}))
    assert "fc.weight is [7, 6272], accepted: [10, 6272] (and 1 more differences)" in message
    assert not (tmp_path / ".cache" / "teachers").exists()


# Quality check


def test_an_untrained_teacher_stops_the_sweep_with_a_one_line_error_every_time(tmp_path):
    torch.manual_seed(0)
    model = models.build("mnist_teacher", (1, 28, 28), 10, width=0.25)
    torch.save(model.state_dict(), tmp_path / "random.pt")
    spec = written(tmp_path, LOADED | {"checkpoint": str(tmp_path / "random.pt")})
    message = refused(spec, TeacherError)
    assert "the teacher mnist_teacher" in message
    assert "accepted: at least 20.0%, twice chance among 10 classes" in message
    assert refused(spec, TeacherError) == message
    assert not spec.sweep_dir.teacher_weights.exists()


@pytest.mark.parametrize(
    ("classes", "accuracy", "good"),
    [(10, 0.2, True), (10, 0.199, False), (100, 0.02, True), (100, 0.0199, False), (2, 0.6, True), (2, 0.59, False),
     (3, 0.61, True), (3, 0.59, False), (4, 0.5, True), (10, float("nan"), False)],
)  # fmt: skip
def test_a_teacher_must_reach_twice_chance(classes, accuracy, good, tmp_path):
    card = TeacherCard("", "m", 1.0, {}, "trained", {"val_accuracy": accuracy}, 1, 1.0, 1)
    data = PreparedData(tmp_path, "", (1, 8, 8), tuple(map(str, range(classes))), (0.0,), (1.0,))
    if good:
        judge(card, data)
    else:
        with pytest.raises(TeacherError, match=f"accepted: at least .*among {classes} classes"):
            judge(card, data)


# Loading


def test_a_loaded_teacher_is_frozen_in_eval_mode_and_leaves_the_random_state_unchanged(tmp_path):
    spec = written(tmp_path, {"model": "resnet", "options": {"depth": 8}})
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    torch.manual_seed(1)
    model = models.build("resnet", data.input_shape, data.num_classes, depth=8)
    model.bn1.running_mean.fill_(0.5)
    weights.save(model.state_dict(), tmp_path / "teacher.safetensors")
    before = torch.get_rng_state()
    tapped = teacher.load(spec, data, tmp_path / "teacher.safetensors", CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert_equal(tapped.model.state_dict(), model.state_dict())
    assert not any(module.training for module in tapped.model.modules())
    assert not any(parameter.requires_grad for parameter in tapped.model.parameters())
    images = torch.rand(4, 1, 28, 28)
    outputs = tapped(images)
    torch.testing.assert_close(outputs.logits, model.eval()(images))
    assert [tuple(stage.shape[1:]) for stage in outputs.features] == [(16, 28, 28), (32, 14, 14), (64, 7, 7)]
