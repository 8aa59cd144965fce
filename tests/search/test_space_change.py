"""A space that changes in an existing sweep: what its trials keep, and what the sampler still learns from."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState
from studies import without_times

from kdsweep.config.changes import changed_spec
from kdsweep.config.load import load_spec
from kdsweep.errors import SpecError
from kdsweep.results.frames import Results
from kdsweep.search.study import Study
from kdsweep.search.trial import State

OPEN = []


@pytest.fixture(autouse=True)
def close_studies():
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def spec(sweep_file):
    return load_spec(sweep_file, {"search.trials": 12, "search.points": [], "train.epochs": 2})


def ended(spec, trials):
    """Save the spec and run this many trials of it."""
    spec.save(spec.sweep_dir.spec)
    study = Study(spec, spec.sweep_dir, spec.search_space)
    OPEN.append(study)
    for _ in range(trials):
        trial = study.ask()
        for epoch in (1, 2):
            accuracy = (int(trial.key[-6:], 16) % 1000) / 1000
            report = {"epoch": epoch, "val_accuracy": accuracy, "seconds": 0.5, "parameters": 10, "size_mb": 1.0}
            study.report(trial.key, {**report, "train_loss": 1.0, "val_loss": 1.0, "lr": 0.1})
        study.finish(trial.key, State.COMPLETE)
    study.close()
    return study


CHANGES = {
    "narrower range": {"space.lr": {"loguniform": [2e-3, 4e-3]}},
    "wider range": {"space.lr": {"loguniform": [1e-4, 1e-1]}},
    "fewer choices": {"space.width": [0.25]},
    "other choices": {"space.width": [0.5, 0.75, 1.0]},
    "choice to constant": {"space.width": 0.5},
    "choice to range": {"space.width": {"uniform": [0.25, 0.5]}},
    "range to choice": {"space.temperature": [2, 4]},
    "fewer methods": {"space.method": ["kd", "none"]},
    "more methods": {"space.method": ["kd", "dkd", "hint", "none"]},
    "only a method": {"space.method": "kd"},
    "a further setting": {"space.batch_size": [32, 64]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_sweep_goes_on_in_its_new_space_and_optuna_alone_reads_its_journal(change, spec):
    first = ended(spec, 5)
    before = [trial.user_attrs["config"] for trial in first._study.get_trials()]
    changed = changed_spec(spec.sweep_dir, CHANGES[change])
    study = ended(changed, 7)
    assert study.done
    configs = [trial.user_attrs["config"] for trial in study._study.get_trials()]
    assert configs[:5] == before
    assert all(changed.search_space.holds(config) for config in configs[5:])
    backend = optuna.storages.journal.JournalFileBackend(str(spec.sweep_dir.journal))
    alone = optuna.load_study(storage=optuna.storages.JournalStorage(backend), study_name=None)
    assert [trial.state for trial in alone.trials] == [TrialState.COMPLETE] * 12
    assert alone.best_value == max(trial.value for trial in alone.trials)
    results = Results(spec.sweep_dir)
    assert list(results.trials.sort_values("number")["space"]) == [0] * 5 + [1] * 7
    assert len(results.importance().columns) == 3


def test_proposals_in_a_changed_space_are_the_same_after_a_restart(spec, tmp_path):
    outcomes = []
    for name, steps in (("whole", (7,)), ("parts", (2, 0, 4, 1))):
        moved = spec.replaced(storage=str(tmp_path / name))
        ended(moved, 5)
        changed = changed_spec(moved.sweep_dir, {"space.lr": {"loguniform": [1e-3, 5e-3]}})
        for trials in steps:
            study = ended(changed, trials)
        outcomes.append([without_times(trial.user_attrs) for trial in study._study.get_trials()])
    assert outcomes[0] == outcomes[1]


def test_the_sampler_keeps_what_lies_in_the_new_space(spec):
    ended(spec, 8)
    changed = changed_spec(spec.sweep_dir, {"space.width": [0.25]})
    study = ended(changed, 0)
    kept = [config for trial in study._study.get_trials() if (config := trial.user_attrs["config"])["width"] == 0.25]
    assert 0 < len(kept) < 8
    assert len(study._proposer._all._study.get_trials()) == len(kept)


def test_a_space_that_returns_has_its_old_number(spec):
    ended(spec, 2)
    ended(changed_spec(spec.sweep_dir, {"space.width": [0.5]}), 2)
    study = ended(changed_spec(spec.sweep_dir, {"space.width": {"choice": [0.25, 0.5]}}), 2)
    assert [trial.user_attrs.get("space", 0) for trial in study._study.get_trials()] == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("made", "change", "message"),
    [
        (
            {"scheduler.group_by": ["temperature"], "space.temperature": [2, 4]},
            {"space.method": ["none"]},
            "scheduler.group_by: found 'temperature'",
        ),
        (
            {
                "search.sampler": "grid",
                "space": {"method": ["kd", "none"], "kd": {"temperature": [2, 4]}, "alpha": 0.5},
            },
            {"space.method": ["kd"]},
            "--set space: cannot change with sampler grid, which lists its configurations at the start",
        ),
        (
            {"space": {"method": ["kd", "none"]}},
            {"space.temperature": [2, 4]},
            "--set space.temperature: no method of the space draws it; accepted: space.kd.temperature",
        ),
        (
            {},
            {"space.epochs": [2, 4]},
            "--set space.epochs: cannot be added to an existing sweep, which has train.epochs; run a new sweep",
        ),
        (
            {},
            {"space.student": ["tutorial_student", "lightnn"]},
            "--set space.student: cannot be added to an existing sweep, which has student; run a new sweep",
        ),
    ],
)
def test_a_space_that_makes_trials_incomparable_is_refused_in_one_line(made, change, message, sweep_file):
    spec = load_spec(sweep_file, {"search.points": [], **made})
    spec.save(spec.sweep_dir.spec)
    with pytest.raises(SpecError) as caught:
        changed_spec(spec.sweep_dir, change)
    (fault,) = caught.value.faults
    assert message in fault


def test_a_setting_is_taken_out_of_an_existing_space(sweep_file):
    teacher = {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"}
    teachers = {"a": teacher, "b": {**teacher, "cache_gb": 1.0}}
    ensemble = {"teacher": None, "teachers": teachers, "space.teacher": ["a", "a+b"], "space.teacher_weight": 0.3}
    spec = load_spec(sweep_file, {**ensemble, "search.points": []})
    spec.save(spec.sweep_dir.spec)
    with pytest.raises(SpecError, match="as with --set space.teacher_weight=null"):
        changed_spec(spec.sweep_dir, {"space.teacher": ["a", "b"]})
    changed = changed_spec(spec.sweep_dir, {"space.teacher": ["a", "b"], "space.teacher_weight": None})
    assert "teacher_weight" not in changed.space
