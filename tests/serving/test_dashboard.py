"""Optuna's own dashboard on the copy of a sweep's study."""

from __future__ import annotations

import hashlib
import sys

import pytest
from made_up import EVIL, begin, run_trials, spec_of
from served import served, wait_for

from kdsweep.errors import InputError, SweepDirError
from kdsweep.results.frames import load_results
from kdsweep.serving import pages
from kdsweep.serving.dashboard import Dashboard, copied_study

optuna_dashboard = pytest.importorskip("optuna_dashboard")


def files_of(root):
    return {file: hashlib.sha256(file.read_bytes()).digest() for file in sorted(root.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def client(made_up):
    before = files_of(made_up.root)
    with served(Dashboard(made_up.root)) as client:
        yield client
    assert files_of(made_up.root) == before


def test_the_real_dashboard_lists_the_study_with_its_metric_and_attributes(client, made_up):
    (study,) = client.json("/api/studies")["study_summaries"]
    assert study["study_name"] == "made-up"
    attributes = {attribute["key"]: attribute["value"] for attribute in study["user_attrs"]}
    assert attributes["objective"] == "val_accuracy"
    assert attributes["teacher val_accuracy"] == "0.98"
    assert attributes["student"] == "mnist_student"
    detail = client.json(f"/api/studies/{study['study_id']}")
    assert detail["objective_names"] == ["val_accuracy"]
    assert len(detail["trials"]) == 40
    status, headers, _ = client.get("/dashboard/")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/html")


def test_each_setting_and_measure_is_a_sortable_attribute(client, made_up):
    (study,) = client.json("/api/studies")["study_summaries"]
    detail = client.json(f"/api/studies/{study['study_id']}")
    sortable = {attribute["key"] for attribute in detail["union_user_attrs"] if attribute["sortable"]}
    assert sortable >= {"width", "temperature", "alpha", "val_accuracy", "val_loss", "epochs", "parameters", "size_mb",
                        "train_seconds", "dkd.beta", "kd_gain", "kd_gain_low", "test_accuracy"}  # fmt: skip
    rows = load_results(made_up.root).trials.set_index("number")
    for trial in detail["trials"]:
        row, shown = rows.loc[trial["number"]], {item["key"]: item["value"] for item in trial["user_attrs"]}
        assert shown["key"] == row["trial"]
        assert shown["method"] == row["method"]
        assert float(shown["width"]) == row["width"]
        states = {"COMPLETE": "Complete", "PRUNED": "Pruned", "FAILED": "Fail"}
        assert trial["state"] == states[row["state"]]
        assert shown.get("error", "") == row["error"]
        assert len(trial["intermediate_values"]) == row["epochs"]


def test_confirmed_gains_are_notes(client, made_up):
    (study,) = client.json("/api/studies")["study_summaries"]
    detail = client.json(f"/api/studies/{study['study_id']}")
    notes = {trial["number"]: trial["note"]["body"] for trial in detail["trials"] if trial["note"]["body"]}
    results = load_results(made_up.root)
    numbers = results.trials.set_index("trial")["number"]
    assert set(notes) == {numbers[key] for key in results.confirmed["trial"]}
    assert all("- over its plain twin: +3.00 points (95 % CI " in note for note in notes.values())
    assert "The best student" in detail["note"]["body"]
    assert EVIL not in detail["note"]["body"]


def test_nothing_can_be_changed(client):
    assert client.get("/api/studies/0", method="DELETE")[0] == 405
    assert client.get("/api/studies/0/note", method="PUT")[0] == 405
    assert client.get("/api/trials/0/tell", method="POST")[0] == 405


def test_running_trials_show_their_epochs_and_the_copy_follows_the_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(pages, "REST", 0.0)
    from kdsweep.search.study import Study

    spec = spec_of(tmp_path)
    begin(spec)
    study = Study(spec, spec.sweep_dir, spec.search_space)
    trial = study.ask()
    metrics = {"train_loss": 1.0, "val_loss": 0.5, "lr": 0.1, "seconds": 0.5, "parameters": 9, "size_mb": 0.1}
    study.report(trial.key, {"epoch": 1, "val_accuracy": 0.5, **metrics})
    study.close()
    with served(Dashboard(spec.sweep_dir.root)) as client:
        (shown,) = client.json("/api/studies/0")["trials"]
        assert shown["state"] == "Running"
        assert shown["intermediate_values"] == [{"step": 1, "value": 0.5}]
        run_trials(spec, trials=5)
        wait_for(lambda: client.json("/api/studies/0")["trials"], lambda trials: len(trials) == 5)


def test_numbers_stay_the_same_after_an_entry_that_a_crash_tore(tmp_path):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec, trials=2)
    storage = JournalStorage(JournalFileBackend(str(spec.sweep_dir.journal)))
    optuna.load_study(study_name=None, storage=storage).ask()  # a trial without a key
    run_trials(spec, trials=2)
    copied = copied_study(load_results(spec.sweep_dir.root)).get_trials()
    numbers = {trial.user_attrs.get("key"): trial.number for trial in copied}
    expected = load_results(spec.sweep_dir.root).trials.set_index("trial")["number"].to_dict()
    assert len(copied) == 5
    assert {key: number for key, number in numbers.items() if key} == expected


def test_a_sweep_without_trials_is_refused(tmp_path):
    spec = spec_of(tmp_path)
    begin(spec)
    with pytest.raises(SweepDirError, match="no trial has begun; start the dashboard once one has"):
        Dashboard(spec.sweep_dir.root)


def test_without_the_package_the_install_command_is_told(made_up, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(
        InputError, match=r"optuna_dashboard is not installed; .*pip install '\.\[dashboard\]' in a checkout of kdsweep"
    ):
        Dashboard(made_up.root)
