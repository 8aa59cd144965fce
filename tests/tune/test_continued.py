"""Sweeps that end early, go on, change their space or start from earlier ones, on a real Ray."""

from __future__ import annotations

import json

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import kdsweep
from kdsweep.storage.paths import SweepDir
from kdsweep.terminal.progress import Silent
from kdsweep.terminal.summary import print_summary

SMALL = {"confirm.top": 0, "train.epochs": 6, "dataset.subset": 400, "scheduler.name": "none", "search.points": []}


class Listening(Silent):
    """Remembers what a search reports."""

    def __init__(self):
        self.lines = []
        self.status = None

    def phase(self, name, text):
        self.lines.append(f"{name}: {text}")

    def search(self, status):
        self.status = status


def run(spec):
    from kdsweep.tune.driver import run

    heard = Listening()
    return run(spec, progress=heard), heard


def entries(sweep):
    return [(entry["trial"], entry["epoch"]) for entry in map(json.loads, sweep.epochs_log.read_text().splitlines())]


def by_optuna(sweep):
    storage = JournalStorage(JournalFileBackend(str(sweep.journal)))
    return optuna.load_study(storage=storage, study_name=None).trials


@pytest.mark.slow
def test_a_search_without_budget_pauses_its_trials_and_a_larger_one_continues_them(local_ray, sweep_file, capsys):
    spec = kdsweep.load_spec(sweep_file, {**SMALL, "search.trials": 6, "search.max_epochs": 8, "confirm.top": 1})
    results, heard = run(spec)
    sweep = SweepDir(results.path)
    paused = results.trials[results.trials["state"] == "RUNNING"]
    assert len(results.trials) < 6 or len(paused)
    assert any(line.startswith("search: the budget is spent: search.max_epochs (8)") for line in heard.lines)
    assert heard.status.left == "0 of 8 epochs left"
    assert heard.status.over
    assert len(results.confirmed) == 1  # with what it has
    for row in paused.itertuples():
        assert sweep.trial(row.trial).state.is_file()
        assert 0 < row.epochs < 6
    print_summary(results)
    assert "The budget is spent: search.max_epochs (8)" in capsys.readouterr().out
    more = kdsweep.resume(sweep.root, overrides={"search.max_epochs": 0, "confirm.top": 0})
    assert dict(more.trials["state"].value_counts()) == {"COMPLETE": 6}
    # Every epoch was trained once: the workers saved the paused trials at the epoch that they had reported.
    assert sorted(entries(sweep)) == sorted((key, epoch) for key in more.trials["trial"] for epoch in range(1, 7))
    assert {trial.state.name for trial in by_optuna(sweep)} == {"COMPLETE"}


@pytest.mark.slow
def test_a_sweep_changes_its_space_and_another_one_starts_from_it(local_ray, sweep_file, tmp_path):
    values = {**SMALL, "train.epochs": 3, "space.method": ["hint", "none"], "search.max_epochs": 4}
    first = kdsweep.run(kdsweep.load_spec(sweep_file, {**values, "search.trials": 4}))
    sweep = SweepDir(first.path)
    begun = len(first.trials)
    # The paused trials of a method that is not searched any more still go on.
    changes = {
        "space.method": ["kd", "none"],
        "space.width": [0.25],
        "search.trials": begun + 3,
        "search.max_epochs": 0,
    }
    more = kdsweep.resume(sweep.root, overrides=changes)
    assert set(more.trials["state"]) == {"COMPLETE"}
    assert list(more.trials.sort_values("number")["space"]) == [0] * begun + [1] * 3
    new = more.trials[more.trials["space"] == 1]
    assert set(new["method"]) <= {"kd", "none"}
    assert set(new["width"]) == {0.25}
    assert len(by_optuna(sweep)) == begun + 3

    later = {**SMALL, "train.epochs": 3, "space.method": ["kd", "none"], "space.width": [0.25], "name": "later"}
    spec = kdsweep.load_spec(sweep_file, {**later, "search.trials": 3, "search.warm_start": [str(sweep.root)]})
    results, heard = run(spec)
    (said,) = [line for line in heard.lines if "warm start" in line]
    assert said.startswith("search: warm start: ")
    taken = json.loads(SweepDir(results.path).warm_start.read_text())["sources"][0]
    assert taken["differences"] == []
    assert len(taken["trials"]) >= 3
    configs = [json.loads(config) for config in results.trials.sort_values("number")["config"]]
    assert configs[: len(taken["points"])] == taken["points"][:3]
    assert results.tuning_curves().empty
