"""Several teachers: which one a trial draws, what an ensemble shows, and that each one's outputs are computed once."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
import torch

from kdsweep.config.load import load_spec
from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import MethodError, SpecError
from kdsweep.search.baseline import plain_twin
from kdsweep.search.extent import searched
from kdsweep.search.faults import point_faults
from kdsweep.search.proposer import Proposer
from kdsweep.search.section import SearchSection
from kdsweep.tasks.image.splits import prepare
from kdsweep.teacher import outputs
from kdsweep.teacher.ensemble import Ensemble, mean_logits, shares_of
from kdsweep.teacher.outputs import StoredTeacher
from kdsweep.training.teaching import NoTeacher
from kdsweep.training.trainer import Training
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")
TEACHERS = {
    "big": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
    "small": {"model": "mnist_student", "train": {"epochs": 2, "lr": 5e-3, "batch_size": 16}},
}
SPACE = {
    "method": ["kd", "hint", "tfkd", "none"],
    "teacher": {"choice": ["big", "small", "big+small"]},
    "teacher_weight": {"uniform": [0.3, 0.9]},
    "teacher_mean": ["logits", "probabilities"],
    "lr": {"loguniform": [1e-3, 1e-2]},
}
KD = {"method": "kd", "width": 1.0, "lr": 3e-3, "alpha": 0.8}


def written(root, **sections):
    return {
        "name": "two",
        "dataset": {"name": "mnist_mini", "subset": 400, "val_fraction": 0.5},
        "teachers": TEACHERS,
        "student": {"model": "lightnn"},
        "space": SPACE,
        "train": {"epochs": 2, "batch_size": 32},
        "storage": str(root),
    } | sections


@pytest.fixture(scope="module", name="bench")
def two_teachers(tmp_path_factory):
    spec = SweepSpec.model_validate(written(tmp_path_factory.mktemp("two")))
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    card = provide_teacher(spec, spec.sweep_dir, data, CPU, lambda metrics: None)
    assert card.model == "mnist_teacher"  # the better one
    spec.sweep_dir.root.mkdir(exist_ok=True)
    spec.save(spec.sweep_dir.spec)
    return Workbench.of(spec, spec.sweep_dir, data, CPU)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_an_ensemble_is_the_mean_of_logits_or_of_probabilities():
    draw = np.random.default_rng(0)
    a, b, c = (draw.normal(size=(5, 4)) * 3 for _ in range(3))
    given = [torch.tensor(one) for one in (a, b, c)]
    shares = shares_of({"teacher_weight": 0.5}, 3)
    assert shares == (0.5, 0.25, 0.25)
    assert shares_of({}, 2) == (0.5, 0.5)
    logits = mean_logits(given, shares, "logits")
    np.testing.assert_allclose(logits, 0.5 * a + 0.25 * b + 0.25 * c, rtol=1e-5)
    probabilities = mean_logits(given, shares, "probabilities").softmax(dim=1)
    np.testing.assert_allclose(probabilities, 0.5 * softmax(a) + 0.25 * softmax(b) + 0.25 * softmax(c), rtol=1e-5)
    alone = mean_logits(given[:2], (1.0, 0.0), "probabilities").softmax(dim=1)
    np.testing.assert_allclose(alone, softmax(a), rtol=1e-5)


def test_a_trial_draws_a_teacher_only_if_it_needs_one_and_an_ensemble_only_for_logits(tmp_path):
    space = SweepSpec.model_validate(written(tmp_path)).search_space
    proposer = Proposer.of(SearchSection(trials=80, sampler="tpe", startup_trials=20), space, 0)
    seen = {}
    for number in range(80):
        config = proposer.propose(number)
        assert space.holds(config)
        assert not point_faults(space, config)
        proposer.tell(config, optuna.trial.TrialState.COMPLETE, [0.1])
        seen.setdefault(config["method"], set()).add(config.get("teacher"))
        assert ("teacher_weight" in config) == ("teacher_mean" in config) == ("+" in str(config.get("teacher")))
        assert not plain_twin(config).keys() & {"teacher", "teacher_weight", "teacher_mean"}
    assert seen == {"kd": {"big", "small", "big+small"}, "hint": {"big", "small"}, "tfkd": {None}, "none": {None}}
    assert {"teacher", "teacher_weight", "teacher_mean"} <= set(searched(space))
    plain = SweepSpec.model_validate(written(tmp_path, space={"method": ["kd", "none"]})).search_space
    assert plain.shared["teacher"].every() == ("big", "small")


def test_an_ensemble_shows_the_mean_of_its_teachers_stored_outputs(bench):
    view, index = bench.train.view("none", 0, 1), torch.tensor([3, 0, 7])
    batch = bench.train.batch(index)
    sources = {}
    for teacher in ("big", "small", "big+small"):
        config = KD | {"teacher": teacher, "teacher_weight": 0.7, "teacher_mean": "logits"}
        source = sources[teacher] = bench.source(trial_recipe(bench.spec, config, 1), config)
        sources[teacher, "logits"] = source.epoch(1, view)(index, batch).logits
    assert isinstance(sources["big"], StoredTeacher)
    assert isinstance(sources["big+small"], Ensemble)
    for name in ("big", "small"):
        own = bench.taught_by(name).teacher.outputs(batch).logits
        torch.testing.assert_close(sources[name, "logits"], own)
    expected = 0.7 * sources["big", "logits"] + 0.3 * sources["small", "logits"]
    torch.testing.assert_close(sources["big+small", "logits"], expected)
    plain = {"method": "none", "width": 1.0, "lr": 3e-3}
    assert isinstance(bench.source(trial_recipe(bench.spec, plain, 1), plain), NoTeacher)


def test_each_teachers_outputs_are_computed_once_for_all_trials(bench, monkeypatch):
    def refuse(*args):
        raise AssertionError("the teacher runs again")

    monkeypatch.setattr(outputs.TeacherInLoop, "outputs", refuse)
    monkeypatch.setattr(outputs.OutputStore, "_compute", refuse)
    curves = {}
    for teacher in ("big", "small", "big+small"):
        config = KD | {"teacher": teacher}
        recipe = trial_recipe(bench.spec, config, 1)
        training = Training(recipe, bench.data, bench.train, bench.val, bench.source(recipe, config))
        curves[teacher] = training.run_epoch()["distill_loss"]
    assert len(set(curves.values())) == 3
    stores = list((bench.spec.sweep_dir.store.root / "outputs").iterdir())
    assert len(stores) == 2


def test_a_method_on_features_is_not_taught_by_an_ensemble(bench):
    config = {"method": "hint", "width": 1.0, "lr": 3e-3, "alpha": 0.5, "teacher": "big+small"}
    with pytest.raises(MethodError, match=r"hint needs the teacher's stage:-1, but big\+small has only logits"):
        bench.source(trial_recipe(bench.spec, config, 1), config)


def test_an_ensemble_is_measured_on_validation_from_what_its_teachers_say(bench):
    answers = {name: bench.taught_by(name).teacher for name in ("big", "small")}
    images = bench.val.normalised(bench.val.images)
    big, small = (answers[name].outputs(images).logits.double().numpy() for name in ("big", "small"))
    labels = bench.val.labels.numpy()
    for share in (0.3, 0.9):
        mean = share * softmax(big) + (1 - share) * softmax(small)
        config = {"teacher": "big+small", "teacher_weight": share, "teacher_mean": "probabilities"}
        assert bench.ensemble_value(config) == pytest.approx((mean.argmax(axis=1) == labels).mean())
    assert bench.ensemble_value(config | {"teacher_weight": 1.0}) == pytest.approx((big.argmax(1) == labels).mean())
    assert bench.sweep.of_teacher("big").teacher_answers("val").is_file()  # run once for all shares


def test_agreement_is_with_the_teacher_of_the_trial(bench, monkeypatch):
    monkeypatch.setitem(bench.__dict__, "test", bench.val)
    big = bench.taught_by("big").teacher.model
    assert bench.agreement(big, {"teacher": "big"}) == 1.0
    assert bench.agreement(big, {"teacher": "small"}) < 1.0
    assert bench.agreement(big, {"teacher": "big+small", "teacher_weight": 1.0}) == 1.0


@pytest.mark.parametrize(("space", "sections", "fault"), [
    ({"teacher": ["big", "smal"]}, {}, "space.teacher: unknown teacher 'smal'; did you mean 'small'"),
    ({"teacher": ["big+big"]}, {}, "accepted: a name in teachers, or several different ones joined by +"),
    ({"method": ["hint"], "teacher": "big+small"}, {}, "hint compares features, which an ensemble has none of"),
    ({"teacher": ["big", "small"], "teacher_weight": 0.5}, {}, "space.teacher_weight: has no effect without"),
    ({}, {"teacher": {"model": "mnist_student"}}, "teacher: found, beside teachers; accepted: one of them"),
    ({}, {"teachers": {"big": {"model": "mnist_teachr"}}}, "teachers.big.model: unknown model 'mnist_teachr'"),
    ({}, {"teachers": {"big": TEACHERS["big"] | {"width": 0.5}}}, "teachers.big.checkpoint: checkpoint"),
    ({}, {"teachers": {"a+b": TEACHERS["big"]}}, "teachers"),
])  # fmt: skip
def test_a_wrong_teacher_is_one_line(tmp_path, space, sections, fault):
    given = written(tmp_path, space={"method": ["kd", "none"]} | space, **sections)
    with pytest.raises(SpecError) as caught:
        load_spec(given)
    assert len(caught.value.faults) == 1, caught.value.faults
    assert fault in caught.value.faults[0]


def test_a_choice_of_teachers_needs_the_section(sweep_file):
    with pytest.raises(SpecError, match="the section teachers is missing"):
        load_spec(sweep_file, {"space.teacher": ["a", "b"]})
