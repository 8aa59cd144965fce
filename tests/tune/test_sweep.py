"""Complete sweeps on a local Ray: their files, their errors and their failed trials."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from filelock import FileLock
from inputs import SWEEP, refused
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import kdsweep
from kdsweep.config.spec import ConstraintsSection
from kdsweep.errors import InputError, SweepDirError, SweepError
from kdsweep.results.gains import judge
from kdsweep.search.section import KEPT_WEIGHTS
from kdsweep.storage.paths import SweepDir
from kdsweep.tune import driver, lanes
from kdsweep.tune.driver import resume, run
from kdsweep.tune.trainable import Lane
from kdsweep.worker import process

QUICK = {"confirm.top": 0, "search.trials": 4, "train.epochs": 2, "dataset.subset": 400}


def states(results):
    return dict(results.trials["state"].value_counts())


def test_a_sweep_runs_the_requested_trials_and_keeps_everything_in_its_directory(swept):
    results = kdsweep.load_results(swept)
    assert len(results.trials) == 10
    assert set(states(results)) == {"COMPLETE", "PRUNED"}
    first = results.trials.sort_values("number").iloc[0]
    assert (first["method"], first["width"], first["temperature"], first["alpha"], first["lr"]) == (
        "kd",
        0.5,
        4,
        0.9,
        3e-3,
    )
    sweep = SweepDir(swept)
    for path in (
        sweep.spec,
        sweep.environment,
        sweep.teacher_weights,
        sweep.journal,
        sweep.epochs_log,
        sweep.trials_frame,
    ):
        assert path.is_file(), path
    assert not sweep.tune.exists()
    assert "test_images.bin" in {path.name for path in sweep.store.root.rglob("*.bin")}


def test_a_stopped_trial_was_stopped_at_a_rung_and_a_complete_one_reached_the_end(swept):
    trials = kdsweep.load_results(swept).trials
    assert set(trials.loc[trials["state"] == "COMPLETE", "epochs"]) == {4}
    assert set(trials.loc[trials["state"] == "PRUNED", "epochs"]) <= {1, 3}


def test_optuna_opens_the_study_and_agrees_with_the_frames(swept):
    results = kdsweep.load_results(swept)
    storage = JournalStorage(JournalFileBackend(str(SweepDir(swept).journal)))
    study = optuna.load_study(storage=storage, study_name=None)
    names = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAIL": "FAILED"}
    assert {t.number: names[t.state.name] for t in study.trials} == dict(
        zip(results.trials["number"], results.trials["state"], strict=True)
    )
    best = dict(zip(results.trials["number"], results.trials["val_accuracy"], strict=True))
    for trial in study.trials:
        assert trial.intermediate_values[max(trial.intermediate_values)] == best[trial.number]
        if trial.state.name == "COMPLETE":
            assert trial.value == best[trial.number]


def test_confirmation_retrains_the_best_next_to_a_plain_twin(swept):
    results = kdsweep.load_results(swept)
    (row,) = results.confirmed.to_dict("records")
    assert row["trial"] == results.distinct(1)["trial"][0]
    assert row["seeds"] == 2
    assert row["kd_gain"] == pytest.approx(row["test_accuracy"] - row["plain_test_accuracy"])
    assert row["kd_gain_tuned"] == pytest.approx(row["test_accuracy"] - row["tuned_plain_test_accuracy"], nan_ok=True)
    assert row["method"] != "none"
    verdict = judge([row["kd_gain"] - row["kd_gain_std"] / 2**0.5, row["kd_gain"] + row["kd_gain_std"] / 2**0.5])
    assert (row["verdict"], row["more_seeds"], row["margin"]) == (verdict.verdict, verdict.more_seeds, 0.005)
    found = [row[name] for name in ("kd_gain_low", "kd_gain_high", "kd_gain_p")]
    assert found == pytest.approx([verdict.low, verdict.high, verdict.p])
    runs = [json.loads(path.read_text()) for path in SweepDir(swept).confirmed.glob("*/result.json")]
    assert len(runs) >= (2 if row["method"] == "none" else 4)
    assert 0.5 < results.teacher["test_accuracy"] <= 1
    ours = [run for run in runs if run["test_accuracy"] == pytest.approx(row["test_accuracy"], abs=0.05)]
    for name in ("loss", "top5_accuracy", "balanced_accuracy", "ece"):
        assert (
            min(run[f"test_{name}"] for run in ours) <= row[f"test_{name}"] <= max(run[f"test_{name}"] for run in ours)
        )
        assert row[f"test_{name}_std"] >= 0
        assert {f"val_{name}"} <= set(results.trials.columns) & set(results.epochs.columns) & set(results.teacher)


@pytest.mark.slow
def test_later_confirmation_of_more_trials_trains_nothing_twice(local_ray, swept, tmp_path):
    copy = SweepDir(Path(shutil.copytree(swept, tmp_path / "small")))
    shutil.copytree(SweepDir(swept).store.root, copy.store.root)
    before = {path: path.stat().st_mtime_ns for path in copy.confirmed.glob("*/result.json")}
    more = kdsweep.confirm(copy.root, top=2, seeds=3).confirmed
    results = kdsweep.load_results(copy.root)
    assert set(more["trial"]) == set(results.candidates(2)["trial"])
    assert more["width"].nunique() == 2  # the winner of each width
    assert more["val_accuracy"].is_monotonic_decreasing
    assert results.best(1)["trial"][0] == more["trial"][0]
    assert set(more["seeds"]) == {3}
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for row in more.to_dict("records"):
        plain = kdsweep.load_results(copy.root).plain(width=row["width"])
        assert pd.isna(row["kd_gain_tuned"]) == (plain.empty or row["method"] == "none")
        if len(plain) and row["method"] != "none":
            assert row["tuned_plain_lr"] == plain["lr"][0]
    # The same seeds make the same first weights, distilled or not.
    norms = {}
    for path in copy.confirmed.glob("*/result.json"):
        run = json.loads(path.read_text())
        norms.setdefault((run["parameters"], path.parent.name.split("-")[1]), set()).add(run["first_layer_norm"])
    assert all(len(found) == 1 for found in norms.values())
    assert not list(copy.confirmed.glob("*/state.safetensors"))


@pytest.mark.slow
def test_seeds_go_to_the_leader_of_each_width_and_nothing_is_trained_twice(local_ray, swept, tmp_path):
    copy = SweepDir(Path(shutil.copytree(swept, tmp_path / "small")))
    shutil.copytree(SweepDir(swept).store.root, copy.store.root)
    shutil.rmtree(copy.confirmed)
    frame = kdsweep.confirm(copy.root, top=3, seeds="auto", trainings=18).confirmed
    runs = {path: path.stat().st_mtime_ns for path in copy.confirmed.glob("*/result.json")}
    assert len(frame) == 3
    assert len(runs) <= 18
    judged = frame[frame["judged_seeds"] > 0]
    assert judged["width"].is_unique
    assert set(judged["method"]) <= {"kd", "hint"}
    assert (frame["kd_gain"].notna() == (frame["judged_seeds"] > 0)).all()
    # An interrupted confirmation trains what is missing, and nothing else.
    lost = sorted(runs)[:3]
    for path in lost:
        path.unlink()
    again = kdsweep.confirm(copy.root, top=3, seeds="auto", trainings=18).confirmed
    pd.testing.assert_frame_equal(again, frame)
    after = {path: path.stat().st_mtime_ns for path in copy.confirmed.glob("*/result.json")}
    assert after.keys() == runs.keys()
    assert {path for path in runs if after[path] != runs[path]} == set(lost)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"trainings": 20}, "--trainings: found 20, which has no effect with seeds: 2; accepted: seeds: auto"),
        ({"seeds": "auto", "top": 5, "trainings": 9}, "--trainings: found 9; accepted: at least 10"),
    ],
)
def test_trainings_that_contradict_the_seeds_are_refused(asked, message, swept, tmp_path):
    copy = Path(shutil.copytree(swept, tmp_path / "small"))
    with pytest.raises(InputError, match=message):
        kdsweep.confirm(copy, **asked)


def test_a_sweep_that_has_not_run_cannot_be_confirmed(tmp_path, sweep_file):
    spec = kdsweep.load_spec(sweep_file)
    spec.sweep_dir.root.mkdir(parents=True)
    spec.save(spec.sweep_dir.spec)
    with refused(SWEEP, InputError, match="no trial has finished an epoch"):
        kdsweep.confirm(spec.sweep_dir.root)


def test_only_the_best_weights_are_kept_and_no_state_of_finished_trials(swept):
    sweep = SweepDir(swept)
    kept = {path.parent.name for path in sweep.trials.glob("*/best.safetensors")}
    best = list(kdsweep.load_results(swept).best(KEPT_WEIGHTS)["trial"])
    assert kept >= set(best)
    assert not list(sweep.trials.glob("*/state.safetensors"))


def test_running_into_a_directory_with_a_sweep_is_refused_and_lists_the_differences(swept):
    spec = kdsweep.load_spec(swept.parent.parent / "small.yaml")
    with refused(SWEEP, SweepDirError, match="already contains this sweep; continue with: kdsweep resume"):
        run(spec)
    other = kdsweep.load_spec(swept.parent.parent / "small.yaml", {"train.epochs": 5})
    with refused(SWEEP, SweepDirError, match=r"contains a different sweep \(train.epochs: 4 -> 5\)"):
        run(other)


def test_running_again_continues_the_same_sweep_and_refuses_another(swept, monkeypatch):
    continued = []
    monkeypatch.setattr(driver, "_go_on", lambda sweep, *others: continued.append(sweep.root))
    run(kdsweep.load_spec(swept.parent.parent / "small.yaml"), again=True)
    assert continued == [swept]
    other = kdsweep.load_spec(swept.parent.parent / "small.yaml", {"train.epochs": 5})
    with refused(SWEEP, SweepDirError, match="contains a different sweep"):
        run(other, again=True)
    assert continued == [swept]


def test_a_second_driver_is_refused(swept):
    with FileLock(SweepDir(swept).lock), refused(SWEEP, SweepDirError, match="another process is running this sweep"):
        kdsweep.resume(swept)


def test_a_sweep_whose_data_changed_is_not_resumed(swept, tmp_path):
    copy = SweepDir(Path(shutil.copytree(swept, tmp_path / "small")))
    copy.data.write_text(copy.data.read_text().replace(json.loads(copy.data.read_text())["digest"], "another"))
    with refused(SWEEP, SweepDirError, match="the data set has changed since the sweep began"):
        kdsweep.resume(copy.root, trials=12)


def test_a_finished_sweep_is_extended_and_keeps_its_trials(local_ray, sweep_file):
    first = kdsweep.run(kdsweep.load_spec(sweep_file, QUICK))
    before = first.trials.set_index("trial")["val_accuracy"]
    more = kdsweep.resume(first.path, trials=6)
    assert len(more.trials) == 6
    after = more.trials.set_index("trial")["val_accuracy"]
    assert (after[before.index] == before).all()
    with refused(SWEEP, InputError, match="search.trials: found 3; accepted: from 6, the present total, to 1000000"):
        kdsweep.resume(first.path, trials=3)


@pytest.mark.slow
def test_the_same_spec_gives_the_same_sweep_if_trials_run_one_at_a_time(local_ray, sweep_file, tmp_path):
    runs = []
    for storage in ("a", "b"):
        overrides = {
            **QUICK,
            "storage": str(tmp_path / storage),
            "resources.max_concurrent": 1,
            "search.startup_trials": 2,
            "train.precision": "float32",  # auto is measured anew for each storage
        }
        runs.append(kdsweep.run(kdsweep.load_spec(sweep_file, overrides)))
    first, second = (r.epochs.drop(columns="seconds") for r in runs)
    assert first.equals(second)
    assert list(runs[0].best(4)["trial"]) == list(runs[1].best(4)["trial"])


@pytest.mark.slow
def test_a_trial_with_a_non_finite_loss_fails_with_the_reason_and_the_sweep_continues(local_ray, sweep_file):
    space = {"method": ["none"], "lr": {"choice": [1e-3, 1e3]}, "width": {"choice": [0.25, 0.5]}}
    overrides = {**QUICK, "space": space, "search.points": [], "train.optimizer": "sgd", "search.sampler": "grid"}
    results = kdsweep.run(kdsweep.load_spec(sweep_file, overrides))
    failed = results.trials[results.trials["state"] == "FAILED"]
    assert set(failed["lr"]) == {1e3}
    assert all("the training loss became" in error for error in failed["error"])
    assert len(results.trials) == 4
    assert states(results)["FAILED"] == 2


@pytest.mark.slow
def test_a_sweep_stops_if_its_first_trials_fail_with_the_same_error(local_ray, sweep_file, tmp_path, monkeypatch):
    (tmp_path / "broken_models.py").write_text(
        "import sys\n"
        "from kdsweep import models\n"
        "def student(input_shape, num_classes, width):\n"
        "    if 'default_worker' in sys.argv[0]:\n"
        "        raise RuntimeError('no student today')\n"
        "    return models.build('mnist_student', input_shape, num_classes, width)\n"
    )
    monkeypatch.chdir(tmp_path)
    overrides = {**QUICK, "student.model": "broken_models:student", "search.trials": 30}
    with pytest.raises(SweepError, match="the first 5 trials all failed with the same error: .*no student today"):
        kdsweep.run(kdsweep.load_spec(sweep_file, overrides))
    results = kdsweep.load_results(tmp_path / "runs" / "small")
    assert states(results)["FAILED"] >= 5
    assert len(results.trials) < 30


@pytest.mark.chaos
def test_a_worker_lost_between_two_trials_loses_neither_trial(local_ray, sweep_file, tmp_path, monkeypatch):
    died = tmp_path / "died"

    class LostWhileSwitching(Lane):
        def reset_config(self, new_config):
            if not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().reset_config(new_config)

    monkeypatch.setattr(lanes, "Lane", LostWhileSwitching)
    results = kdsweep.run(kdsweep.load_spec(sweep_file, QUICK))
    assert died.exists()
    assert len(results.trials) == 4
    assert "FAILED" not in states(results)


@pytest.mark.chaos
@pytest.mark.parametrize("scheduler", [{"name": "asha", "grace_epochs": 1}, {"name": "none"}])
def test_epochs_that_a_lost_worker_saved_but_did_not_report_are_reported_by_the_next(
    scheduler, local_ray, sweep_file, tmp_path, monkeypatch
):
    died = tmp_path / "died"

    class LostBeforeReporting(Lane):
        def step(self):
            report = super().step()
            if not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return report

    monkeypatch.setattr(lanes, "Lane", LostBeforeReporting)
    results = kdsweep.run(kdsweep.load_spec(sweep_file, {**QUICK, "scheduler": scheduler}))
    assert died.exists()
    for trial, rows in results.epochs.groupby("trial"):
        assert list(rows["epoch"]) == list(range(1, len(rows) + 1)), trial
    assert dict(results.epochs.groupby("trial").size()) == dict(results.trials.set_index("trial")["epochs"])
    assert set(states(results)) <= {"COMPLETE", "PRUNED"}


@pytest.mark.slow
def test_workers_are_set_up_for_training_and_the_users_process_is_unchanged(
    local_ray, sweep_file, tmp_path, monkeypatch
):
    class Inspected(Lane):
        def step(self):
            report = super().step()
            (tmp_path / "flushes").write_text(str(process.flushes_subnormals()))
            return report

    can_flush = torch.set_flush_denormal(False)
    before = torch.get_num_threads(), process.flushes_subnormals()
    monkeypatch.setattr(lanes, "Lane", Inspected)
    kdsweep.run(kdsweep.load_spec(sweep_file, {**QUICK, "search.trials": 1, "search.points": []}))
    assert (tmp_path / "flushes").read_text() == str(can_flush)
    assert (torch.get_num_threads(), process.flushes_subnormals()) == before


@pytest.mark.slow
def test_students_over_a_limit_are_never_trained(local_ray, sweep_file):
    overrides = {**QUICK, "constraints.parameters": 5_000, "search.points": []}
    results = kdsweep.run(kdsweep.load_spec(sweep_file, overrides))
    assert set(results.trials["width"]) == {0.25}
    assert results.trials["parameters"].max() <= 5_000
    message = "constraints: no searched width of mnist_student .* satisfies {'parameters': 100}"
    with refused(SWEEP, InputError, match=message):
        kdsweep.load_spec(sweep_file, {**overrides, "constraints.parameters": 100, "name": "none"})


def test_a_folder_that_holds_other_files_is_left_alone(sweep_file):
    spec = kdsweep.load_spec(sweep_file)
    files = [spec.sweep_dir.teacher / "weights.pt", spec.sweep_dir.data, spec.sweep_dir.spec]
    spec.sweep_dir.teacher.mkdir(parents=True)
    for file in files:
        file.write_text("mine")
        with refused(SWEEP, SweepDirError, match=r"runs/small contains files but no sweep; choose another --name"):
            kdsweep.run(spec)
        assert file.read_text() == "mine"
    assert {path for path in spec.sweep_dir.root.rglob("*") if path.is_file()} == set(files)


def test_a_failed_resume_does_not_change_the_number_of_trials(swept, tmp_path):
    sweep = tmp_path / "copy"
    shutil.copytree(swept, sweep)
    before = (sweep / "spec.yaml").read_text()
    with refused(SWEEP, InputError, match=r"^--address 127.0.0.1:1: nothing answers there: .*refused; accepted: auto"):
        resume(sweep, trials=12, address="127.0.0.1:1")
    assert (sweep / "spec.yaml").read_text() == before


@pytest.mark.slow
def test_a_start_that_failed_before_its_search_does_not_block_the_corrected_file(sweep_file):
    """Not even if the corrected file names different data and a different teacher."""
    # `load_spec` would refuse these limits, so that they fail in the run they are set afterwards.
    wrong = kdsweep.load_spec(sweep_file).replaced(constraints=ConstraintsSection(parameters=100))
    sweep = wrong.sweep_dir
    for limit, changes in ((100, {}), (100, {}), (50, {"dataset.subset": 800})):
        spec = kdsweep.load_spec(sweep_file, changes).replaced(constraints=ConstraintsSection(parameters=limit))
        with refused(SWEEP, InputError, match=f"satisfies .'parameters': {limit}"):
            kdsweep.run(spec)
        assert sweep.spec.is_file()
        sweep.teacher.mkdir(exist_ok=True)
        sweep.teacher_card.write_text("{}")
    sweep.journal.write_text("a trial\n")
    with refused(SWEEP, SweepDirError, match="contains a different sweep"):
        kdsweep.run(wrong)
    assert sweep.teacher_card.is_file()


@pytest.mark.slow
def test_a_sweep_works_with_augmentation_and_a_users_own_model(local_ray, sweep_file, tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(
        "from torch import nn\n"
        "def tiny(input_shape, num_classes, width, hidden=8):\n"
        "    features = input_shape[0] * input_shape[1] * input_shape[2]\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(features, int(hidden * width)), nn.ReLU(),\n"
        "                         nn.Linear(int(hidden * width), num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    mixed = ["crop", {"mixup": {"alpha": {"choice": [0.2, 1.0]}}}]
    space = {"method": ["kd", "none"], "width": {"choice": [1.0, 2.0]}, "augment": {"choice": ["crop_flip", mixed]}}
    student = {"model": "my_models:tiny", "options": {"hidden": 4}}
    points = [{"method": "kd", "augment": "crop+mixup", "mixup.alpha": 0.2}, {"method": "none", "augment": "crop_flip"}]
    overrides = {**QUICK, "space": space, "student": student, "search.points": points, "dataset.views": 2}
    results = kdsweep.run(kdsweep.load_spec(sweep_file, overrides))
    assert set(results.trials["parameters"]) <= {785 * 4 + 50, 785 * 8 + 90}
    assert "FAILED" not in states(results)
    first, second = results.trials.sort_values("number").head(2).to_dict("records")
    assert (first["augment"], first["mixup.alpha"]) == ("crop+mixup", 0.2)
    assert second["augment"] == "crop_flip"
    assert math.isnan(second["mixup.alpha"])
    stored = {path.parent for path in (results.path.parent / ".cache" / "outputs").rglob("logits.bin")}
    assert {path.name for path in stored} <= {"view-0001", "view-0002"}
    assert 1 <= len({path.parent for path in stored}) <= 3
    assert len(kdsweep.resume(results.path).trials) == len(results.trials)
    (folder,) = results.export(tmp_path / "students", top=1)
    assert re.search(r"^\| augment \| crop", (folder / "README.md").read_text(), re.MULTILINE)
    with refused(SWEEP, InputError, match="its model is user code, 'my_models:tiny'; pass trust_code=True"):
        kdsweep.load_student(folder)
    assert kdsweep.load_student(folder, trust_code=True) is not None


@pytest.mark.slow
def test_the_same_processes_prepare_search_and_confirm(local_ray, sweep_file, tmp_path, monkeypatch):
    (tmp_path / "noted_models.py").write_text(
        "import os\n"
        "from pathlib import Path\n"
        "from torch import nn\n"
        "def tiny(input_shape, num_classes, width, file=''):\n"
        "    with Path(file).open('a') as pids:\n"
        "        pids.write(f'{os.getpid()}\\n')\n"
        "    features = input_shape[0] * input_shape[1] * input_shape[2]\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    pids = tmp_path / "pids"
    changes = {
        **QUICK,
        "space": {"method": ["kd", "dkd"], "lr": {"loguniform": [1e-3, 1e-2]}},
        "student": {"model": "noted_models:tiny", "options": {"file": str(pids)}},
        "search.points": [],
        "confirm": {"top": 1, "seeds": 2},
    }
    results = kdsweep.run(kdsweep.load_spec(sweep_file, changes))
    assert len(results.confirmed) == 1
    built = [int(pid) for pid in pids.read_text().split()]
    workers = set(built) - {os.getpid()}
    timeline = json.loads((results.path / "environment.json").read_text())["timeline"]
    # 4 trials and 4 confirmation runs, two of the plain twin, were built, all of them in the lanes.
    assert len([pid for pid in built if pid in workers]) >= 8
    assert 1 <= len(workers) <= timeline["workers"]
    assert list(timeline["stages"]) == ["prepare", "search", "confirm", "predict", "costs"]
    assert all(times["end"] >= times["first_step"] >= 0 for times in timeline["stages"].values())


def test_user_errors_exit_with_code_2_and_one_line_without_a_traceback(swept, tmp_path):
    kdsweep_command = [sys.executable, "-c", "from kdsweep.cli import main; main()"]
    for arguments in (
        ["run", str(tmp_path / "none.yaml")],
        ["resume", str(tmp_path)],
        ["results", str(tmp_path / "x")],
    ):
        done = subprocess.run([*kdsweep_command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stdout == ""
