"""A sweep whose objective is smallest at its best: rungs, leader, kept weights, frames and confirmation follow it."""

from __future__ import annotations

import optuna
import pytest
from inputs import SPEC, refused
from optuna.storages.journal import JournalFileBackend

from kdsweep.config.load import load_spec
from kdsweep.config.spec import read_spec
from kdsweep.errors import SpecError
from kdsweep.results.confirmed import confirmed_frame, verdict_of
from kdsweep.results.designs import Chosen, FixedSeeds
from kdsweep.results.frames import load_results, write_frames
from kdsweep.search.study import Study
from kdsweep.search.trial import State
from kdsweep.seeds import run_name
from kdsweep.terminal.progress import SearchStatus, best_text
from kdsweep.terminal.tables import ranked

# Losses by epoch, the parameters, and how the trial ends unless a rung stops it.
STORY = [
    ([0.9, 0.7, 0.6], 100, State.COMPLETE),
    ([1.5], 100, State.PRUNED),
    ([0.6, 0.65, 0.5], 200, State.COMPLETE),
    ([0.8, 0.65, 0.75], 50, State.COMPLETE),
]


@pytest.fixture
def spec(sweep_file):
    space = {"method": ["none"], "width": 0.5, "lr": {"loguniform": [1e-3, 1e-2]}}
    return load_spec(sweep_file, {
        "objective.metric": "val_loss", "train.epochs": 3, "scheduler.reduction_factor": 2,
        "search.trials": len(STORY), "search.points": [],
        "space": space,
    })  # fmt: skip


@pytest.fixture
def told(spec):
    sweep = spec.sweep_dir
    sweep.root.mkdir(parents=True)
    spec.save(sweep.spec)
    study = Study(spec, sweep, spec.search_space)
    for losses, parameters, state in STORY:
        trial = study.ask()
        for epoch, loss in enumerate(losses, start=1):
            # The accuracy says the opposite, so that whoever goes by it is found out.
            stop = study.report(trial.key, {
                "epoch": epoch, "train_loss": 1.0, "val_loss": loss, "val_accuracy": loss / 2, "lr": 0.1,
                "seconds": 0.5, "parameters": parameters, "size_mb": 1.0,
            })  # fmt: skip
            assert stop == (loss == 1.5)
        study.finish(trial.key, state)
    study.close()
    write_frames(sweep)
    return study


def test_the_mode_is_the_metrics_and_is_written_resolved(spec):
    assert (spec.goal.column, spec.goal.mode) == ("val_loss", "min")
    spec.sweep_dir.root.mkdir(parents=True)
    spec.save(spec.sweep_dir.spec)
    assert read_spec(spec.sweep_dir).goal == spec.goal
    assert "mode: min" in spec.sweep_dir.spec.read_text()


def test_a_wrong_metric_or_mode_is_a_fault_with_its_line(sweep_file):
    sweep_file.write_text(sweep_file.read_text() + "objective:\n  metric: val_lost\n")
    last = len(sweep_file.read_text().splitlines())
    with refused(
        SPEC, SpecError, match=rf":{last}: objective\.metric: unknown metric 'val_lost'; did you mean 'val_loss"
    ):
        load_spec(sweep_file)
    with refused(SPEC, SpecError, match=r"objective\.mode: found 'max'; accepted: 'min', which is best for val_loss"):
        load_spec(sweep_file, {"objective.metric": "val_loss", "objective.mode": "max"})
    assert load_spec(sweep_file, {"objective.metric": "val_ece"}).goal.mode == "min"


def test_leader_and_journal_go_by_the_smallest_loss(told):
    assert (told.leader.number, told.leader.best) == (2, 0.5)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(told.sweep.journal)))
    alone = optuna.load_study(storage=storage, study_name=None)
    assert alone.direction == optuna.study.StudyDirection.MINIMIZE
    assert alone.best_trial.number == 2
    assert alone.trials[0].intermediate_values == {1: 0.9, 2: 0.7, 3: 0.6}


def test_the_sampler_learns_that_small_losses_are_best(told):
    values = {trial.number: trial.value for trial in told._proposer._all._study.get_trials() if trial.value is not None}
    assert values == {0: -0.6, 1: -1.5, 2: -0.5, 3: -0.65}


def test_a_study_opened_again_knows_the_same(told, spec):
    again = Study(spec, spec.sweep_dir, spec.search_space)
    assert (again.leader.number, again.leader.best, again.counts) == (2, 0.5, told.counts)
    assert [trial.number for trial in again._kept.trials] == [2, 0, 3, 1]
    again.close()


def test_frames_hold_the_smallest_loss_and_are_ranked_by_it(told):
    results = load_results(told.sweep.root)
    assert list(results.trials["val_loss"]) == [0.6, 1.5, 0.5, 0.65]
    assert list(results.trials["val_loss_last"]) == [0.6, 1.5, 0.5, 0.75]
    assert list(results.trials["val_accuracy"]) == [0.3, 0.75, 0.25, 0.325]
    assert list(results.trials["rung.1"]) == [0.9, 1.5, 0.6, 0.8]
    assert list(results.best(4)["number"]) == list(ranked(results)["number"]) == [2, 0, 3, 1]
    assert list(results.pareto()["number"]) == [3, 0, 2]
    assert list(results.plain()["number"]) == [2]


def test_a_gain_is_positive_where_the_loss_is_smaller(told, spec):
    results = load_results(told.sweep.root)
    chosen = Chosen("0002-aaaaaa", {"method": "kd", "width": 0.5, "lr": 1e-3}, {"method": "none", "width": 0.5}, None)
    measured = {
        run_name(config, 7): {"parameters": 1, "size_mb": 1.0, "first_layer_norm": 1.0, "val_loss": loss,
                              "test_loss": loss} for config, loss in ((chosen.config, 0.5), (chosen.twin, 0.75))
    }  # fmt: skip
    (row,) = confirmed_frame(FixedSeeds([chosen], [7]), measured, results.goal, results.spec.gain_margin()).to_dict(
        "records"
    )
    assert (row["test_loss"], row["plain_test_loss"], row["kd_gain"]) == (0.5, 0.75, 0.25)
    assert row["margin"] == 0  # the cross entropy declares none


def test_verdicts_of_a_loss_are_worded_in_its_own_unit(told, spec):
    results = load_results(told.sweep.root)
    chosen = Chosen("0002-aaaaaa", {"method": "kd", "width": 0.5, "lr": 1e-3}, {"method": "none", "width": 0.5}, None)
    seeds = range(7, 13)
    measured = {
        run_name(config, seed): {"parameters": 1, "size_mb": 1.0, "first_layer_norm": 1.0, "val_loss": loss,
                                 "test_loss": loss + seed / 1000, "test_ece": seed / 100}
        for config, loss in ((chosen.config, 0.75), (chosen.twin, 0.5)) for seed in seeds
    }  # fmt: skip
    (row,) = confirmed_frame(
        FixedSeeds([chosen], list(seeds)), measured, results.goal, results.spec.gain_margin()
    ).to_dict("records")
    assert (row["verdict"], row["kd_gain"]) == ("loss", pytest.approx(-0.25))  # the larger loss is no gain
    text = verdict_of(row, "kd_gain").text("loss")
    assert text.startswith("-0.25 (")
    assert "points" not in text
    assert (row["test_ece"], row["test_ece_std"]) == pytest.approx((0.095, 0.0187083), abs=1e-6)
    assert "test_accuracy" not in row  # these runs did not measure it


def test_progress_shows_a_loss_as_a_number():
    status = SearchStatus(4, 0, 3, 1, 0, 10, "val_loss", 0.5, {"method": "kd"}, 0.25)
    assert best_text(status) == "best 0.5 (teacher 0.25)"
