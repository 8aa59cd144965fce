"""Results as frames: their columns and types, and that they agree with the logs and with Optuna."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import made_up
import optuna
import pandas as pd
import pytest
from inputs import SWEEP, refused
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pandas.testing import assert_frame_equal

import kdsweep
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import InputError, SweepDirError
from kdsweep.results.confirmed import verdict_of
from kdsweep.results.doctor import examine
from kdsweep.results.frames import load_results, write_frame, write_frames
from kdsweep.results.from_logs import fingerprint
from kdsweep.results.report.page import write_report
from kdsweep.search.study import Study
from kdsweep.search.trial import State
from kdsweep.terminal import tables

LEADING = ["trial", "number", "state", "method", "width", "temperature", "alpha", "lr"]
MEASURED = [
    "epochs",
    "val_accuracy",
    "val_accuracy_last",
    "val_loss",
    "parameters",
    "size_mb",
    "flops",
    "latency_ms",
    "latency_iqr_ms",
    "throughput",
    "activation_mb",
    "train_seconds",
    "space",
    "node",
    "device",
    "started_at",
    "ended_at",
    "error",
]
EPOCHS = [
    "trial",
    "epoch",
    "train_loss",
    "task_loss",
    "distill_loss",
    "val_loss",
    "val_accuracy",
    "lr",
    "seconds",
    "parameters",
    "size_mb",
    "flops",
    "node",
    "device",
]
NUMBERS = {
    "number": "int64", "width": "float64", "temperature": "float64", "alpha": "float64", "lr": "float64",
    "epochs": "int64", "val_accuracy": "float64", "val_accuracy_last": "float64", "val_loss": "float64",
    "parameters": "Int64", "size_mb": "float64", "flops": "Int64", "latency_ms": "float64", "latency_iqr_ms": "float64",
    "throughput": "float64", "activation_mb": "float64", "train_seconds": "float64",
}  # fmt: skip

KD = {"method": "kd", "width": 1, "temperature": 4.0, "alpha": 0.5, "alpha_schedule": "linear"}
DKD = {"method": "dkd", "width": 0.5, "temperature": 2.0, "alpha": 0.75, "dkd.beta": 3.0, "alpha_schedule": "constant"}
NONE = {"method": "none", "width": 0.5}
SUM = {"method": "kd+at", "width": 1, "temperature": 2.0, "alpha": 0.75, "at.weight": 99.0, "alpha_schedule": "linear"}
SIZES = {1: (100, 0.25), 0.5: (50, 0.125)}

# What is tried, the accuracies that it reaches epoch by epoch, and how it ends.
STORY = [
    (KD, [0.5, 0.75, 0.625], State.COMPLETE),
    (DKD, [0.25], State.PRUNED),
    (NONE, [0.5, 0.75, 0.75], State.COMPLETE),
    (SUM, [0.9], State.FAILED),
    (KD | {"temperature": 8.0}, [0.25, 0.8], State.RUNNING),
    (NONE | {"width": 1}, [], State.FAILED),
    (KD, [0.5, 0.75, 0.625], State.COMPLETE),
]


def spec_of(root, **sections):
    return SweepSpec.model_validate({
        "name": "told",
        "dataset": {"name": "mnist_mini"},
        "teacher": {"model": "mnist_teacher"},
        "student": {"model": "mnist_student"},
        "space": {
            "method": ["kd", "dkd", "none", "kd+at"],
            "width": {"choice": [0.5, 1]},
            "temperature": {"uniform": [1, 8]},
            "alpha_schedule": {"choice": ["constant", "linear"]},
        },
        "train": {"epochs": 3, "lr": 1},
        "search": {"sampler": "random", "trials": len(STORY), "points": [point for point, _, _ in STORY]},
        "storage": str(root),
    } | sections)  # fmt: skip


def line(width, epoch, accuracy):
    parameters, size_mb = SIZES[width]
    return {"epoch": epoch, "train_loss": 3.0 - epoch, "val_loss": 1 - accuracy / 2, "val_accuracy": accuracy,
            "lr": 0.5, "seconds": 0.25, "parameters": parameters, "size_mb": size_mb}  # fmt: skip


@pytest.fixture
def told(tmp_path):
    """The directory of a sweep that went as STORY says."""
    spec = spec_of(tmp_path)
    spec.sweep_dir.root.mkdir()
    spec.save(spec.sweep_dir.spec)
    study = Study(spec, spec.sweep_dir, spec.search_space)
    for point, accuracies, state in STORY:
        trial = study.ask()
        for epoch, accuracy in enumerate(accuracies, start=1):
            study.report(trial.key, line(point["width"], epoch, accuracy))
        if state is not State.RUNNING:
            study.finish(trial.key, state, "out of GPU memory: 2 GiB" if state is State.FAILED else "")
    study.close()
    return spec.sweep_dir


def assert_types(trials):
    assert {name: str(dtype) for name, dtype in trials.dtypes.items() if name in NUMBERS} == NUMBERS
    for name in ("trial", "state", "method", "error", "config"):
        assert pd.api.types.is_string_dtype(trials[name])


def open_with_optuna(path):
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(storage=storage, study_name=None)


# The frames


def test_there_is_a_row_per_trial_in_the_order_asked(told):
    trials = load_results(told.root).trials
    own = ["alpha_schedule", "at.weight", "dkd.beta", "rung.1"]
    assert [column for column in trials.columns if column not in own] == [*LEADING, *MEASURED, "config"]
    assert set(own) <= set(trials.columns)
    assert_types(trials)
    assert list(trials["number"]) == list(range(7))
    assert list(trials["state"]) == ["COMPLETE", "PRUNED", "COMPLETE", "FAILED", "RUNNING", "FAILED", "COMPLETE"]
    assert list(trials["method"]) == ["kd", "dkd", "none", "kd+at", "kd", "none", "kd"]
    assert list(trials["epochs"]) == [3, 1, 3, 1, 2, 0, 3]
    assert trials["trial"].str.fullmatch(r"000[0-6]-[0-9a-f]{6}").all()


def test_trials_are_listed_from_best_to_worst_and_failed_ones_last(told):
    listed = tables.ranked(load_results(told.root))
    assert list(listed["number"]) == [4, 2, 0, 6, 1, 3, 5]
    assert list(listed["state"][-2:]) == ["FAILED", "FAILED"]


def test_a_row_tells_the_best_epoch_the_last_one_and_the_time_of_all(told):
    row = load_results(told.root).trials.iloc[0]
    assert (row["val_accuracy"], row["val_accuracy_last"]) == (0.75, 0.625)
    assert row["val_loss"] == 1 - 0.75 / 2
    assert row["train_seconds"] == 0.75
    assert (row["parameters"], row["size_mb"]) == (100, 0.25)
    assert (row["temperature"], row["alpha"], row["lr"], row["width"]) == (4.0, 0.5, 1.0, 1.0)


def test_a_trial_tells_where_and_when_it_ran(tmp_path):
    spec = spec_of(tmp_path)
    spec.save(spec.sweep_dir.spec)
    study = Study(spec, spec.sweep_dir, spec.search_space)
    keys = [study.ask().key for _ in range(3)]
    for key, node in zip(keys[:2], ("10.0.0.1", "10.0.0.2"), strict=True):
        where = {"node": node, "device": "NVIDIA H100"}
        study.locate(key, where)
        study.report(key, line(1, 1, 0.5) | where)
    study.locate(keys[2], {"node": "10.0.0.3", "device": "cpu"})
    study.finish(keys[0], State.PRUNED)
    study.finish(keys[2], State.FAILED, "out of GPU memory: 2 GiB")  # before its first epoch
    study.close()
    results = load_results(spec.sweep_dir.root)
    trials = results.trials
    assert trials["node"].tolist() == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert trials["device"].tolist() == ["NVIDIA H100", "NVIDIA H100", "cpu"]
    assert trials["started_at"].str.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}\+00:00").all()
    assert (trials["ended_at"] >= trials["started_at"]).tolist() == [True, False, True]
    assert trials["ended_at"][1] == ""
    assert results.epochs["node"].tolist() == ["10.0.0.1", "10.0.0.2"]


def test_what_a_trial_does_not_have_is_missing_and_errors_are_text(told):
    trials = load_results(told.root).trials.set_index("number")
    assert trials.loc[1, "dkd.beta"] == 3.0
    assert trials["dkd.beta"].notna().sum() == 1
    assert trials["temperature"].isna().tolist() == [False, False, True, False, False, True, False]
    assert pd.isna(trials.loc[5, "val_accuracy"])
    assert pd.isna(trials.loc[5, "parameters"])
    failure = "out of GPU memory: 2 GiB"
    assert trials["error"].tolist() == ["", "", "", failure, "", failure, ""]
    assert json.loads(trials.loc[1, "config"]) == DKD | {"lr": 1}


def test_a_row_tells_what_was_seen_at_each_rung(told):
    at_first = load_results(told.root).trials["rung.1"]
    assert at_first.isna().tolist() == [False] * 5 + [True, False]
    assert at_first.dropna().tolist() == [0.5, 0.25, 0.5, 0.9, 0.25, 0.5]


def test_without_early_stopping_there_are_no_rungs(tmp_path):
    spec = spec_of(tmp_path, scheduler={"name": "none"})
    spec.sweep_dir.root.mkdir()
    spec.save(spec.sweep_dir.spec)
    assert not [name for name in load_results(spec.sweep_dir.root).trials.columns if name.startswith("rung.")]


def test_importance_is_that_of_complete_trials_only(tmp_path):
    spec = spec_of(tmp_path, search={"sampler": "random", "trials": 60}, scheduler={"name": "none"})
    spec.sweep_dir.root.mkdir()
    spec.save(spec.sweep_dir.spec)
    study = Study(spec, spec.sweep_dir, spec.search_space)
    while (trial := study.ask()) is not None:
        # Among the complete ones the width decides; among the stopped ones the method does.
        stopped = trial.number % 2
        accuracy = (
            0.01 * (trial.config["method"] == "none")
            if stopped
            else float(trial.config["width"]) / 2 + trial.number / 1e4
        )
        for epoch in range(1, 2 if stopped else 4):
            study.report(trial.key, line(trial.config["width"], epoch, accuracy))
        study.finish(trial.key, State.PRUNED if stopped else State.COMPLETE)
    study.close()
    found = load_results(spec.sweep_dir.root).importance()
    assert list(found.columns) == ["parameter", "importance", "trials"]
    assert found["parameter"][0] == "width"
    assert found["trials"].max() == 30
    by_name = found.set_index("parameter")
    assert by_name.loc["width", "importance"] > 5 * by_name.loc["method", "importance"]
    assert by_name.loc["temperature", "trials"] < 30  # drawn for some methods only


def test_importance_of_too_few_trials_is_empty(told):
    assert load_results(told.root).importance().empty


def test_there_is_a_row_per_trial_and_epoch(told):
    results = load_results(told.root)
    epochs = results.epochs
    assert list(epochs.columns) == EPOCHS
    numbers = results.trials.set_index("trial")["number"]
    expected = [(n, e, a) for n, (_, reached, _) in enumerate(STORY) for e, a in enumerate(reached, start=1)]
    found = zip(epochs["trial"].map(numbers), epochs["epoch"], epochs["val_accuracy"], strict=True)
    assert sorted(found) == expected
    assert {str(epochs[name].dtype) for name in ("epoch", "parameters")} == {"int64"}
    # As version 0.1.0 wrote epochs, nobody knows what their losses were made of.
    assert epochs[["task_loss", "distill_loss"]].isna().all(axis=None)
    assert {str(epochs[name].dtype) for name in ("train_loss", "val_loss", "val_accuracy", "lr", "seconds")} == {
        "float64"
    }


def test_an_epoch_that_was_repeated_after_an_interruption_counts_once(told):
    before = load_results(told.root).trials
    key = before["trial"][4]
    with told.epochs_log.open("a") as log:
        for epoch, accuracy in ((2, 0.7), (3, 0.9)):
            log.write(json.dumps({"trial": key, **line(1, epoch, accuracy)}) + "\n")
    results = load_results(told.root)
    own = results.epochs[results.epochs["trial"] == key]
    assert own[["epoch", "val_accuracy"]].to_numpy().tolist() == [[1, 0.25], [2, 0.7], [3, 0.9]]
    row = results.trials.iloc[4]
    assert (row["epochs"], row["val_accuracy"], row["train_seconds"]) == (3, 0.9, 0.75)


def test_a_trial_that_trained_alone_is_a_cohort_of_one(told):
    assert "cohort" not in load_results(told.root).epochs
    key = load_results(told.root).trials["trial"][4]
    with told.epochs_log.open("a") as log:
        log.write(json.dumps({"trial": key, **line(1, 3, 0.9), "cohort": 4}) + "\n")
    for written in (False, True):
        epochs = load_results(told.root).epochs
        assert epochs["cohort"].dtype == "Int64"
        assert epochs["cohort"].value_counts().to_dict() == {1: len(epochs) - 1, 4: 1}
        if not written:
            old = epochs.assign(cohort=epochs["cohort"].astype(float).where(epochs["cohort"] > 1))
            write_frame(old, told.epochs_frame, fingerprint(told))  # as earlier versions wrote it


def test_a_torn_last_line_is_left_out(told):
    before = load_results(told.root).epochs
    with told.epochs_log.open("a") as log:
        log.write('{"trial": "0004-')
    assert_frame_equal(load_results(told.root).epochs, before)


def test_frames_in_files_are_those_made_from_the_logs(told):
    from_logs = load_results(told.root)
    trials, epochs = from_logs.trials, from_logs.epochs
    write_frames(told)
    assert_frame_equal(pd.read_parquet(told.trials_frame), trials)
    assert_frame_equal(pd.read_parquet(told.epochs_frame), epochs)
    from_files = load_results(told.root)
    assert_frame_equal(from_files.trials, trials)
    assert_frame_equal(from_files.epochs, epochs)


def test_frames_in_files_are_not_read_when_the_logs_are_newer(told):
    write_frames(told)
    key = load_results(told.root).trials["trial"][4]
    with told.epochs_log.open("a") as log:
        log.write(json.dumps({"trial": key, **line(1, 3, 0.95)}) + "\n")
    later = told.trials_frame.stat().st_mtime_ns + 1_000_000
    os.utime(told.epochs_log, ns=(later, later))
    results = load_results(told.root)
    assert results.trials["val_accuracy"][4] == 0.95
    assert len(results.epochs) == 14


def test_a_sweep_that_has_only_begun_has_empty_frames_with_their_columns(tmp_path):
    spec = spec_of(tmp_path)
    spec.sweep_dir.root.mkdir()
    spec.save(spec.sweep_dir.spec)
    results = kdsweep.load_results(spec.sweep_dir.root)
    assert list(results.trials.columns) == [*LEADING, "rung.1", *MEASURED, "config"]
    assert list(results.epochs.columns) == EPOCHS
    for frame in (results.trials, results.epochs, results.confirmed, results.best(3), results.distinct(3),
                  results.pareto(), results.plain()):  # fmt: skip
        assert len(frame) == 0
    assert results.teacher == {}
    with refused(SWEEP, InputError, match="trial '0': no trial matches"):
        results.config("0")
    write_frames(spec.sweep_dir)
    assert list(load_results(spec.sweep_dir.root).trials.columns) == [*LEADING, "rung.1", *MEASURED, "config"]


def test_trials_that_were_asked_but_have_no_epoch_yet_are_rows(tmp_path):
    spec = spec_of(tmp_path)
    spec.sweep_dir.root.mkdir()
    spec.save(spec.sweep_dir.spec)
    study = Study(spec, spec.sweep_dir, spec.search_space)
    study.ask()
    study.close()
    (row,) = load_results(spec.sweep_dir.root).trials.to_dict("records")
    assert (row["state"], row["epochs"], row["method"]) == ("RUNNING", 0, "kd")
    assert pd.isna(row["val_accuracy"])


# Optuna


def test_optuna_reads_the_same_states_values_and_parameters(told):
    study = open_with_optuna(told.journal)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [trial.state.name for trial in study.trials] == [
        "COMPLETE", "PRUNED", "COMPLETE", "FAIL", "RUNNING", "FAIL", "COMPLETE",
    ]  # fmt: skip
    assert study.trials[0].intermediate_values == {1: 0.5, 2: 0.75, 3: 0.75}
    assert study.trials[1].intermediate_values == {1: 0.25}
    assert study.trials[0].value == 0.75
    assert study.trials[1].params == DKD


def assert_agrees(results):
    names = {"FAIL": "FAILED", "WAITING": "RUNNING"}
    trials = {trial.number: trial for trial in open_with_optuna(results.sweep.journal).trials}
    assert set(trials) == set(results.trials["number"])
    for row in results.trials.to_dict("records"):
        trial = trials[row["number"]]
        assert names.get(trial.state.name, trial.state.name) == row["state"]
        assert trial.user_attrs["key"] == row["trial"]
        if row["state"] != "RUNNING":
            own = results.epochs[results.epochs["trial"] == row["trial"]].sort_values("epoch")
            best_so_far = own.set_index("epoch")["val_accuracy"].cummax().to_dict()
            assert trial.intermediate_values == best_so_far
            assert row["epochs"] == len(best_so_far)
        if row["state"] == "COMPLETE":
            assert trial.value == row["val_accuracy"]
        assert trial.params.items() <= json.loads(row["config"]).items()


def test_the_frames_agree_with_the_journal(told):
    assert_agrees(load_results(told.root))


def test_a_finished_sweep_agrees_with_its_journal(swept):
    results = load_results(swept)
    assert_agrees(results)
    assert set(results.trials["state"]) <= {"COMPLETE", "PRUNED"}
    complete = results.trials[results.trials["state"] == "COMPLETE"]
    assert (complete["epochs"] == 4).all()
    assert_types(results.trials)
    assert len(results.trials) == 10


def test_the_files_of_a_finished_sweep_are_those_made_from_its_logs(swept, tmp_path):
    results = load_results(swept)
    assert results.sweep.trials_frame.is_file()
    copy = tmp_path / "copy"
    shutil.copytree(swept, copy, ignore=shutil.ignore_patterns("*.parquet", "trials", "teacher"))
    again = load_results(copy)
    assert_frame_equal(again.trials, results.trials)
    assert_frame_equal(again.epochs, results.epochs)


def test_results_need_neither_torch_nor_ray(swept):
    code = f"""
import sys, kdsweep
results = kdsweep.load_results({str(swept)!r})
shown = [results.trials, results.epochs, results.best(5), results.pareto(), results.confirmed, results.plain()]
print(len(shown), "torch" in sys.modules, "ray" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "6 False False\n"


# What is asked of them


def test_the_best_are_those_of_the_highest_accuracy_the_smaller_first(told):
    results = load_results(told.root)
    assert list(results.best(10)["number"]) == [4, 2, 0, 6, 1]
    assert list(results.best(2)["number"]) == [4, 2]
    assert list(results.best()["number"]) == [4]
    assert list(results.best(2).index) == [0, 1]


def test_a_configuration_that_was_tried_twice_is_one_of_the_distinct(told):
    assert list(load_results(told.root).distinct(10)["number"]) == [4, 2, 0, 1]
    assert list(load_results(told.root).distinct(3)["number"]) == [4, 2, 0]


def test_the_pareto_front_goes_from_small_to_large_without_what_a_smaller_one_reaches(told):
    front = load_results(told.root).pareto()
    assert list(front["number"]) == [2, 4]
    assert front["parameters"].is_monotonic_increasing


def test_plain_is_the_best_complete_trial_without_distillation(told):
    results = load_results(told.root)
    assert list(results.plain()["number"]) == [2]
    assert results.plain(width=1).empty  # the only one failed
    stopped = results.trials.assign(state="PRUNED")
    assert not stopped[stopped["method"] == "none"].empty
    results.__dict__["trials"] = stopped
    assert results.plain().empty


def test_effort_counts_trials_and_epochs_of_each_method_and_width(told):
    effort = load_results(told.root).effort()
    assert [tuple(row) for row in effort.itertuples(index=False)] == [
        (0.5, "dkd", 1, 0, 1), (0.5, "none", 1, 1, 3), (1.0, "kd", 3, 2, 8), (1.0, "kd+at", 1, 0, 1),
        (1.0, "none", 1, 0, 0),
    ]  # fmt: skip


def test_a_trial_is_found_by_key_number_and_beginning(told):
    results = load_results(told.root)
    key = results.trials["trial"][1]
    for name in (key, "1", "0001", key[:7]):
        assert results.config(name) == DKD | {"lr": 1}
        assert results.trial(name)["trial"] == key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("99", "no trial matches"),
        ("x", "no trial matches"),
        ("", "7 trials match"),
        ("00", "no trial matches"),
        ("000", "no trial matches"),
        ("01", "no trial matches"),
        ("²", "no trial matches"),
        ("../../etc", "no trial matches"),
    ],
)
def test_a_name_of_no_trial_or_of_several_is_refused(name, message, told):
    results = load_results(told.root)
    with refused(SWEEP, InputError, match="accepted: a key or number such as 0000-") as caught:
        results.config(name)
    assert message in str(caught.value)


@pytest.mark.parametrize("top", ["a", -1, 2.5, None])
def test_a_number_of_best_trials_that_is_none_is_refused(top, told):
    with pytest.raises(InputError, match="^best: found .*; accepted: a number of trials, such as 5$"):
        load_results(told.root).best(top)


def test_results_are_printed_with_the_best_student_and_its_verdict(made_up):
    results = load_results(made_up.root)
    best, judged = results.best().iloc[0], results.confirmed.iloc[0]
    lines = repr(results).splitlines()
    counts = results.trials["state"].value_counts()
    assert lines[0] == (
        f"Results({str(made_up.root)!r}): 40 trials ({counts['COMPLETE']} complete, {counts['PRUNED']} stopped early, "
        f"{counts['FAILED']} failed)"
    )
    assert lines[1].startswith(f"best {best['trial']}: {best['method']}, width 1, ")
    assert lines[2] == f"     val_accuracy {best['val_accuracy']:.2%} (teacher 98.00%), 16,000 parameters"
    assert lines[3].startswith(
        "     confirmed: test_accuracy 91.00% over 3 seeds; over its plain twin: +3.00 points (95 % CI "
    )
    assert lines[3].endswith(verdict_of(judged, "kd_gain").conclusion("accuracy"))
    assert lines[4] == f"frames: trials (40 rows), epochs ({len(results.epochs)}), confirmed (2)"
    page = results._repr_html_()
    assert f"<td>{best['val_accuracy']:.2%}</td>" in page
    assert f"<td>{verdict_of(judged, 'kd_gain').text('accuracy')}</td>" in page


def test_results_without_trials_or_with_a_damaged_journal_are_printed(tmp_path, told):
    told.trials_frame.unlink(missing_ok=True)
    told.epochs_frame.unlink(missing_ok=True)
    told.journal.write_text("no journal\n")
    text = repr(load_results(told.root))
    assert text.startswith(f"Results({str(told.root)!r}): ")
    assert "not a readable journal" in text
    assert "\n" not in text


def test_what_is_no_sweep_is_refused_in_one_line(tmp_path, told):
    with refused(SWEEP, SweepDirError, match="no such directory; accepted: a sweep directory such as runs/quickstart$"):
        load_results(tmp_path / "gone")
    with refused(SWEEP, SweepDirError, match="not a sweep directory: spec.yaml is missing$"):
        load_results(tmp_path)
    told.journal.write_text("no journal\n")
    with refused(SWEEP, SweepDirError, match="not a readable journal") as caught:
        _ = load_results(told.root).trials
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sections", [
    {"objective": {"metric": "val_top5_accuracy", "mode": "max"}},
    {"dataset": {"name": "unlabelled_folder"}, "objective": {"metric": "val_agreement", "mode": "max"},
     "space": {"method": ["kd"], "width": {"choice": [0.25, 0.5]}}},
])  # fmt: skip
def test_a_sweep_without_an_epoch_has_empty_frames_a_report_and_no_damage(sections, tmp_path):
    spec = made_up.spec_of(tmp_path, **sections)
    made_up.begin(spec)
    made_up.run_trials(spec, trials=0)
    for _ in range(2):  # from the logs, then from the frames that the doctor writes
        results = load_results(spec.sweep_dir.root)
        assert results.trials.empty
        assert results.epochs.empty
        assert {spec.goal.column, "epochs"} <= set(results.trials.columns)
        assert spec.goal.column in results.epochs.columns
        assert "made-up" in write_report(results, tmp_path / "report.html").read_text()
        assert not [found for found in examine(spec.sweep_dir) if found.state == "damaged"]
