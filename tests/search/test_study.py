"""The study: what it hands out, when it stops a trial, and what it knows again after a crash."""

from __future__ import annotations

import json

import optuna
import pytest
from inputs import SWEEP, refused
from optuna.trial import TrialState
from studies import opened

from kdsweep.config.load import load_spec
from kdsweep.errors import SweepDirError
from kdsweep.search.section import KEPT_WEIGHTS
from kdsweep.search.stopping.asha import ASHA
from kdsweep.search.study import Study
from kdsweep.search.trial import State


@pytest.fixture
def spec(sweep_file):
    return load_spec(sweep_file, {"train.epochs": 9, "search.trials": 12, "search.points": []})


def metrics(epoch, accuracy):
    return {"epoch": epoch, "val_accuracy": accuracy, "train_loss": 1.0, "val_loss": 1.0, "lr": 0.1, "seconds": 0.5}


def play(study, trial, accuracies):
    """Report epochs until the study stops the trial or they end; says whether it was stopped."""
    for epoch, accuracy in enumerate(accuracies, start=len(trial.values) + 1):
        if study.report(trial.key, metrics(epoch, accuracy)):
            return True
    return False


def score(trial):
    """A deterministic accuracy that depends on the configuration alone."""
    return round((int(trial.key[-6:], 16) % 1000) / 1000, 3)


def drive(study, limit=1000):
    """Run trials to their end, one at a time, for at most `limit` epochs; says whether all ended."""
    epochs = 0
    while (trial := study.ask()) is not None:
        for epoch in range(len(trial.values) + 1, study.spec.train.epochs + 1):
            if epochs == limit:
                return False
            epochs += 1
            if study.report(trial.key, metrics(epoch, score(trial) * epoch / 9)):
                study.finish(trial.key, State.PRUNED)
                break
        else:
            study.finish(trial.key, State.COMPLETE)
    return True


def outcome(study):
    return [
        (t.number, t.state, t.user_attrs.get("key"), t.params, t.intermediate_values) for t in study._study.get_trials()
    ]


def test_rungs_stop_all_but_the_best_third_of_those_that_came():
    rungs = ASHA(9, grace_epochs=1, reduction_factor=3)
    assert rungs.milestones == [1, 3]
    stopped = [rungs.reached("a", str(n), 1, value) for n, value in enumerate([0.5, 0.4, 0.6, 0.55, 0.7, 0.65])]
    assert stopped == [False, True, False, True, False, False]


def test_rungs_compare_within_a_group_only_and_judge_a_trial_once():
    rungs = ASHA(9, grace_epochs=1, reduction_factor=3)
    assert not rungs.reached("wide", "w", 1, 0.9)
    assert not rungs.reached("narrow", "n", 1, 0.5)
    assert rungs.reached("wide", "x", 1, 0.8)
    assert not rungs.reached("wide", "x", 1, 0.8)
    assert not rungs.reached("wide", "y", 2, 0.1)


@pytest.mark.parametrize(
    ("grace", "factor", "epochs", "milestones"), [(3, 3, 243, [3, 9, 27, 81]), (1, 2, 8, [1, 2, 4])]
)
def test_rungs_are_whole_multiples(grace, factor, epochs, milestones):
    assert ASHA(epochs, grace_epochs=grace, reduction_factor=factor).milestones == milestones


def test_a_trial_is_judged_by_its_best_accuracy_so_far(spec):
    study = opened(spec.replaced(scheduler=spec.scheduler.model_copy(update={"grace_epochs": 3, "group_by": []})))
    first, second = study.ask(), study.ask()
    assert not play(study, first, [0.5, 0.5, 0.5])
    assert not play(study, second, [0.9, 0.1, 0.1])
    assert second.best == 0.9


@pytest.mark.parametrize("stop_after", [0, 1, 3, 7, 15, 29])
def test_a_study_interrupted_anywhere_goes_on_as_if_it_had_not_been(spec, tmp_path, stop_after):
    whole = opened(spec.replaced(storage=str(tmp_path / "whole")))
    assert drive(whole)
    parts = spec.replaced(storage=str(tmp_path / "parts"))
    study = opened(parts)
    while not drive(study, limit=stop_after or 1):
        study = opened(parts)  # the one before is not closed, as after SIGKILL
    assert outcome(study) == outcome(whole)
    assert study.counts == whole.counts
    assert all(t.state.is_finished() for t in study._study.get_trials())


def test_the_number_of_trials_is_exactly_what_was_asked(spec):
    study = opened(spec)
    drive(study)
    assert sum(study.counts.values()) == 12
    assert study.ask() is None
    assert study.done


def test_torn_last_lines_are_cut_off_and_nothing_else_is_lost(spec):
    study = opened(spec)
    drive(study, limit=20)
    study.close()
    sweep = spec.sweep_dir
    whole = sweep.epochs_log.read_bytes(), sweep.journal.read_bytes()
    for path in (sweep.epochs_log, sweep.journal):
        with path.open("ab") as file:
            file.write(b'{"trial": "0001-abc", "epo')
    again = opened(spec)
    assert (sweep.epochs_log.read_bytes(), sweep.journal.read_bytes()) == whole
    assert drive(again)


def test_an_entry_torn_between_asking_and_naming_is_no_zombie(spec):
    study = opened(spec)
    drive(study, limit=5)
    study._study.enqueue_trial({"method": "kd"})
    study.close()
    again = opened(spec)
    assert drive(again)
    states = [t.state for t in again._study.get_trials()]
    assert TrialState.WAITING not in states
    assert TrialState.RUNNING not in states
    assert sum(again.counts.values()) == 12


def test_a_damaged_log_is_refused_with_its_line(spec):
    study = opened(spec)
    drive(study, limit=5)
    study.close()
    log = spec.sweep_dir.epochs_log
    lines = log.read_text().splitlines(keepends=True)
    for damaged, message in (("not json\n", ":3: damaged: "), ("[1]\n", ":3: damaged; accepted: a JSON object with")):
        log.write_text("".join([*lines[:2], damaged, *lines[3:]]))
        with refused(SWEEP, SweepDirError, match=message):
            opened(spec)
    log.write_text("".join(lines))
    spec.sweep_dir.journal.write_text("{}\n" * 3)
    with refused(SWEEP, SweepDirError, match=r"study.journal: damaged"):
        opened(spec)
    spec.sweep_dir.journal.unlink()
    with refused(SWEEP, SweepDirError, match=r"study.journal: missing or empty"):
        opened(spec)


def test_configurations_are_not_tried_twice_while_there_are_others(spec):
    space = {"method": ["none"], "width": {"choice": [0.25, 0.5, 1.0]}, "lr": {"choice": [0.1, 0.01]}}
    study = opened(spec.replaced(space=space, search=spec.search.model_copy(update={"trials": 6})))
    configs = []
    while (trial := study.ask()) is not None:
        configs.append(json.dumps(trial.config, sort_keys=True))
        play(study, trial, [0.5] * 9)
        study.finish(trial.key, State.COMPLETE)
    assert len(set(configs)) == 6


def test_a_grid_tries_every_combination_and_then_ends(spec):
    space = {"method": ["kd", "none"], "temperature": {"choice": [2, 4]}, "alpha": {"choice": [0.5]}}
    study = opened(spec.replaced(space=space, search=spec.search.model_copy(update={"sampler": "grid", "trials": 99})))
    assert study.target == 3
    drive(study)
    assert sum(study.counts.values()) == 3


def test_points_come_first_and_what_they_leave_out_is_drawn(spec):
    search = spec.search.model_copy(update={"points": [{"method": "none"}, {"method": "kd", "alpha": 0.5}]})
    study = opened(spec.replaced(search=search))
    first, second = study.ask(), study.ask()
    assert first.config["method"] == "none"
    assert (second.config["method"], second.config["alpha"]) == ("kd", 0.5)
    assert 2 <= second.config["temperature"] <= 8


def test_weights_are_kept_for_the_best_and_for_the_best_of_each_size(spec):
    search = spec.search.model_copy(update={"trials": 30})
    study = opened(spec.replaced(search=search, scheduler=spec.scheduler.model_copy(update={"name": "none"})))
    for number in range(30):
        trial = study.ask()
        folder = study.sweep.trial(trial.key)
        folder.root.mkdir(parents=True)
        folder.best.touch()
        folder.state.touch()
        study.report(trial.key, {**metrics(1, number / 100), "parameters": 10 if number == 3 else 1000})
        study.finish(trial.key, State.COMPLETE if number % 7 else State.FAILED, "" if number % 7 else "broken")
    kept = {path.parent.name for path in study.sweep.trials.glob("*/best.safetensors")}
    assert len(kept) == KEPT_WEIGHTS + 1
    assert any(key.startswith("0003-") for key in kept)
    assert not list(study.sweep.trials.glob("*/state.safetensors"))


def test_the_sweep_file_says_how_many_weights_are_kept(spec):
    study = opened(spec.replaced(search=spec.search.model_copy(update={"trials": 8, "keep_weights": 3})))
    for number in range(8):
        trial = study.ask()
        folder = study.sweep.trial(trial.key)
        folder.root.mkdir(parents=True)
        folder.best.touch()
        study.report(trial.key, {**metrics(1, number / 100), "parameters": 1000})
        study.finish(trial.key, State.PRUNED)
    assert {path.parent.name[:4] for path in study.sweep.trials.glob("*/best.safetensors")} == {"0005", "0006", "0007"}


def test_weights_are_kept_for_the_best_complete_plain_trial_of_each_width(spec):
    search = spec.search.model_copy(update={"trials": 60})
    study = opened(spec.replaced(search=search))
    plain = {}
    for number in range(60):
        trial = study.ask()
        folder = study.sweep.trial(trial.key)
        folder.root.mkdir(parents=True)
        folder.best.touch()
        distilled, pruned = trial.config["method"] != "none", number % 4 == 3
        value = 0.5 + distilled * 0.4 + number / 1000
        for epoch in range(1, 2 if pruned else spec.train.epochs + 1):
            study.report(trial.key, {**metrics(epoch, value), "parameters": 1000})
        study.finish(trial.key, State.PRUNED if pruned else State.COMPLETE)
        if not distilled and not pruned:
            plain[trial.config["width"]] = trial.key
    kept = {path.parent.name for path in study.sweep.trials.glob("*/best.safetensors")}
    assert len(plain) > 1
    assert len(kept) == KEPT_WEIGHTS + len(plain)
    assert set(plain.values()) <= kept
    study.close()
    again = Study(study.spec, study.sweep, study.spec.search_space)
    assert {trial.key for trial in again._kept.trials} == kept
    again.close()


def test_a_failed_trial_is_told_fail_with_its_reason(spec):
    study = opened(spec)
    trial = study.ask()
    study.finish(trial.key, State.FAILED, "out of memory")
    (told,) = study._study.get_trials()
    assert told.state == TrialState.FAIL
    assert told.user_attrs["summary"]["error"] == "out of memory"


def test_the_journal_is_one_that_optuna_alone_reads(spec):
    study = opened(spec)
    drive(study)
    backend = optuna.storages.journal.JournalFileBackend(str(spec.sweep_dir.journal))
    alone = optuna.load_study(storage=optuna.storages.JournalStorage(backend), study_name=None)
    assert len(alone.trials) == 12
    assert alone.direction == optuna.study.StudyDirection.MAXIMIZE
