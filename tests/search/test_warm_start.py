"""Sweeps that start from what earlier ones found."""

from __future__ import annotations

import json
import random
import shutil

import optuna
import pytest
from optuna.trial import TrialState

from kdsweep.config.load import load_spec
from kdsweep.errors import SpecError
from kdsweep.results.earlier import record, taken
from kdsweep.search.prior import Prior, PriorTrial, RankedMemory
from kdsweep.search.proposer import Proposer
from kdsweep.search.section import SearchSection
from kdsweep.search.space import SearchSpace
from kdsweep.search.study import State, Study

OPEN = []
SPACE = SearchSpace.parse({"method": ["kd", "none"], "width": {"choice": [0.5, 1.0]}, "lr": {"uniform": [0.01, 1.0]}})


@pytest.fixture(autouse=True)
def close_studies():
    yield
    while OPEN:
        OPEN.pop().close()


def accuracy(config):
    """Best at a learning rate of 3e-3; wide students are better."""
    return 0.5 + 0.4 * config["width"] - 40 * abs(config["lr"] - 3e-3) - (0.05 if config["method"] == "none" else 0)


def search(spec, trials=1000):
    """Run up to this many trials of a sweep."""
    spec.save(spec.sweep_dir.spec)
    record(spec, spec.search_space)
    study = Study(spec, spec.sweep_dir, spec.search_space)
    OPEN.append(study)
    while trials and (trial := study.ask()) is not None:
        trials -= 1
        for epoch in (1, 2):
            report = {"epoch": epoch, "val_accuracy": accuracy(trial.config) * epoch / 2, "seconds": 0.5, "lr": 0.1}
            study.report(trial.key, {**report, "parameters": 10, "size_mb": 1.0, "train_loss": 1.0, "val_loss": 1.0})
        study.finish(trial.key, State.COMPLETE if trial.number % 3 else State.PRUNED)
    study.close()
    return study


def configs(study):
    return [trial.user_attrs["config"] for trial in study._study.get_trials()]


@pytest.fixture
def old(sweep_file):
    spec = load_spec(sweep_file, {"name": "old", "search.trials": 40, "search.points": [], "train.epochs": 2})
    return spec, search(spec)


def later(sweep_file, old, **overrides):
    values = {"name": "new", "search.trials": 12, "search.points": [], "search.warm_start": [str(old.sweep_dir.root)]}
    return load_spec(sweep_file, {**values, "train.epochs": 2, **overrides})


def test_the_best_of_each_width_and_the_best_plain_trials_come_first(sweep_file, old):
    spec, study = old
    new = later(sweep_file, spec)
    (one,) = taken(new, new.search_space)
    assert one.text() == f"4 points and 40 trials from {spec.sweep_dir.root}"
    complete = [(accuracy(c), c) for number, c in enumerate(configs(study)) if number % 3]
    for width in (0.25, 0.5):
        best = max((found for found in complete if found[1]["width"] == width and found[1]["method"] == "none"),
                   key=lambda found: found[0])  # fmt: skip
        assert best[1] in one.points
    assert configs(search(new))[:4] == one.points


def test_only_what_the_new_space_holds_is_taken(sweep_file, old):
    spec, study = old
    new = later(sweep_file, spec, **{"space.width": [0.25], "space.method": ["kd", "none"]})
    (one,) = taken(new, new.search_space)
    held = [config for config in configs(study) if config["width"] == 0.25 and config["method"] != "hint"]
    assert 0 < len(one.trials) == len(held) < 40
    assert len(one.points) == 2


@pytest.mark.parametrize(
    ("overrides", "differs"),
    [
        ({"dataset.subset": 600}, "data set"),
        ({"seed": 1}, "data set"),
        ({"teacher.checkpoint": None}, "teacher"),
        ({"student.model": "lightnn"}, "student"),
        ({"train.optimizer": "sgd"}, "train section"),
    ],
)
def test_of_a_sweep_with_another_teacher_or_other_data_only_points_are_taken(overrides, differs, sweep_file, old):
    new = later(sweep_file, old[0], **overrides)
    (one,) = taken(new, new.search_space)
    assert one.differences == [differs]
    assert (len(one.points), one.trials) == (4, [])
    assert f"4 points, but no trials because of a different {differs}, from " in one.text()


def test_a_teacher_of_another_content_counts_as_another(sweep_file, old):
    new = later(sweep_file, old[0])
    for sweep, digest in ((old[0].sweep_dir, "a"), (new.sweep_dir, "b")):
        sweep.teacher.mkdir(parents=True)
        sweep.teacher_card.write_text(json.dumps({"digest": digest}))
    assert taken(new, new.search_space)[0].differences == ["teacher"]


def test_a_resumed_sweep_proposes_the_same_without_the_earlier_one(sweep_file, old, tmp_path):
    new = later(sweep_file, old[0])
    whole = search(new.replaced(storage=str(tmp_path / "whole")))
    parts = new.replaced(storage=str(tmp_path / "parts"))
    search(parts, 3)
    shutil.rmtree(old[0].sweep_dir.root)
    for trials in (0, 5, 1):
        search(parts, trials)
    assert configs(search(parts)) == configs(whole)


def test_a_warm_start_finds_good_settings_sooner():
    space = SearchSpace.parse({"method": "kd", "alpha": 0.5, "lr": {"uniform": [0.01, 1.0]}, "kd": {"temperature": 4}})
    values = random.Random(0)
    drawn = [{"method": "kd", "width": 1.0, "alpha": 0.5, "lr": values.uniform(0.01, 1.0)} for _ in range(60)]
    earlier = [{**config, "kd.temperature": 4} for config in drawn]
    prior = Prior(trials=tuple(PriorTrial(0, c, True, 2, 100 - abs(float(c["lr"]) - 0.3)) for c in earlier))
    held = [trial for trial in prior.trials if space.holds(trial.config)]
    assert len(held) == 60
    distance = {"cold": 0.0, "warm": 0.0}
    for seed in range(5):
        for name, known in (("cold", Prior()), ("warm", prior)):
            proposer = Proposer.of(SearchSection(trials=16), space, seed, prior=known)
            for number in range(16):
                config = proposer.propose(number)
                distance[name] += abs(float(config["lr"]) - 0.3)
                proposer.tell(config, TrialState.COMPLETE, [1 - abs(float(config["lr"]) - 0.3)])
    assert distance["warm"] < 0.5 * distance["cold"]


def test_a_sampler_sees_ranks_within_sweep_and_width_and_never_values_of_another_sweep():
    def prior(source, width, score, complete=True):
        return PriorTrial(source, {"method": "none", "width": width, "lr": 0.1}, complete, 2, score)

    earlier = [prior(0, 0.5, 70.0), prior(0, 0.5, 90.0), prior(0, 1.0, 10.0), prior(1, 0.5, 1.0, complete=False),
               PriorTrial(0, {"method": "hint", "width": 0.5, "lr": 0.1}, True, 2, 99.0)]  # fmt: skip
    memory = RankedMemory(SPACE, 10, earlier)
    study = optuna.create_study(storage=memory, direction="maximize")
    for number, (width, value) in enumerate([(0.5, 0.3), (0.5, 0.4), (0.5, 0.2), (1.0, 0.9)]):
        study.enqueue_trial({"method": "none", "width": width, "lr": 0.5})
        trial = study.ask()
        SPACE.suggest(trial)
        trial.report(value, 1)
        study.tell(trial, value if number != 2 else None, state=TrialState.PRUNED if number == 2 else None)
    seen = study._storage.get_all_trials(study._study_id, states=(TrialState.COMPLETE,))
    assert [(trial.params["width"], trial.value) for trial in seen] == [
        (0.5, 2 / 3), (0.5, 1 / 3), (1.0, 1 / 2), (0.5, 1 / 2),
        (0.5, 2 / 4), (0.5, 3 / 4), (0.5, 1 / 4), (1.0, 1 / 2),
    ]  # fmt: skip
    assert len({trial.number for trial in seen}) == 8
    assert memory.get_trial(2).state is TrialState.PRUNED  # the truth is unchanged


def test_without_earlier_sweeps_nothing_is_recorded(sweep_file, old):
    assert Prior.recorded(old[0].sweep_dir) == Prior()
    assert not old[0].sweep_dir.warm_start.exists()


def test_paths_become_absolute_and_directories_without_a_sweep_are_refused(sweep_file, old, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert later(sweep_file, old[0], **{"search.warm_start": ["runs/old"]}).search.warm_start == [
        str(old[0].sweep_dir.root)
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError) as caught:
        later(
            sweep_file, old[0], **{"search.warm_start": ["gone", "empty", "runs/old"], "objective.metric": "val_loss"}
        )
    gone, empty, metric = caught.value.faults
    assert gone.startswith(
        f"--set search.warm_start.0: {tmp_path}/gone: no such directory; accepted: a sweep directory"
    )
    assert empty.startswith(f"--set search.warm_start.1: {tmp_path}/empty: not a sweep directory: spec.yaml is missing")
    assert metric.startswith("--set search.warm_start.2: found ")
    assert "whose objective is val_accuracy; accepted: sweeps with val_loss" in metric
