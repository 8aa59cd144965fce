"""Trackers have what the logs of a sweep have: every trial, epoch and end, once. Read back with the real packages."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
import read_back

from kdsweep.config.spec import SweepSpec
from kdsweep.results.frames import load_results, write_frame
from kdsweep.search.study import State, Study
from kdsweep.tracking.section import TrackingSection
from kdsweep.tracking.session import attach, tracked

pytestmark = [
    # MLflow uses an option that SQLAlchemy 2.1 deprecates; wandb leaves files of its service to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NAMES = ("tensorboard", "mlflow", "wandb")  # of trackers, and of the packages that they need
EPOCHS = 3


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    # W&B replaces these; they are put back after each test.
    monkeypatch.setattr(sys, "exit", sys.exit)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("kdsweep.tracking.feed.EVERY_SECONDS", 0.05)


def spec_of(root: Path, name: str = "followed") -> SweepSpec:
    return SweepSpec.model_validate({
        "name": name,
        "dataset": {"name": "mnist_mini"},
        "teacher": {"model": "mnist_teacher"},
        "student": {"model": "mnist_student"},
        "space": {"method": ["kd", "dkd", "none"], "width": {"choice": [0.25, 0.5]}},
        "train": {"epochs": EPOCHS},
        "search": {"sampler": "random", "trials": 6},
        "scheduler": {"name": "none"},
        "storage": str(root / "runs"),
    })  # fmt: skip


@cache
def empty_store() -> bytes:
    """An SQLite store of MLflow; creating one takes seconds."""
    from mlflow import MlflowClient

    with TemporaryDirectory() as folder:
        MlflowClient(f"sqlite:///{folder}/mlflow.db")
        return (Path(folder) / "mlflow.db").read_bytes()


def section_of(name: str, root: Path) -> TrackingSection:
    if name == "mlflow":
        (root / "mlflow.db").write_bytes(empty_store())
    options = {
        "tensorboard": {"tensorboard": True},
        "mlflow": {"mlflow": f"sqlite:///{root}/mlflow.db"},
        "wandb": {"wandb": {"project": "tests"}},
    }
    return TrackingSection.model_validate(options[name])


def epoch_of(number: int, epoch: int) -> dict[str, float]:
    value = round(0.5 + 0.01 * number + 0.1 * math.sin(epoch), 4)  # the second epoch is the best one
    return {"epoch": epoch, "train_loss": 2.0 / epoch, "val_loss": 1 - value, "val_accuracy": value, "lr": 0.1,
            "seconds": 0.5, "parameters": 1000 + number, "size_mb": 0.25}  # fmt: skip


def train(study: Study, trial, epochs: range, state: State | None, error: str = "") -> None:
    for epoch in epochs:
        study.report(trial.key, epoch_of(trial.number, epoch))
    if state:
        study.finish(trial.key, state, error)


def opened(spec: SweepSpec) -> Study:
    return Study(spec, spec.sweep_dir, spec.search_space)


def first_session(spec: SweepSpec) -> None:
    """Four trials: complete, stopped after an epoch, failed without one, and interrupted after two epochs."""
    study = opened(spec)
    train(study, study.ask(), range(1, EPOCHS + 1), State.COMPLETE)
    train(study, study.ask(), range(1, 2), State.PRUNED)
    train(study, study.ask(), range(0), State.FAILED, "out of memory")
    train(study, study.ask(), range(1, 3), None)
    study.close()


def second_session(spec: SweepSpec) -> None:
    """Finish the interrupted trial, and run two more."""
    study = opened(spec)
    train(study, study.ask(), range(3, EPOCHS + 1), State.COMPLETE)
    while (trial := study.ask()) is not None:
        train(study, trial, range(1, EPOCHS + 1), State.COMPLETE)
    study.close()


def begin(spec: SweepSpec) -> None:
    spec.sweep_dir.root.mkdir(parents=True)
    spec.save(spec.sweep_dir.spec)


def follow(spec: SweepSpec, section: TrackingSection, session=lambda spec: None) -> list[str]:
    lines: list[str] = []
    with tracked(section, spec.sweep_dir, spec.goal, lines.append):
        session(spec)
    return lines


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_has_the_trials_and_epochs_of_the_frames_and_a_resumed_sweep_appends_to_them(name, tmp_path):
    pytest.importorskip(name)
    spec, section, read = spec_of(tmp_path), section_of(name, tmp_path), getattr(read_back, name)
    begin(spec)
    lines = follow(spec, section, first_session)
    assert lines == section.described(spec.sweep_dir)
    before = read(spec.sweep_dir)
    read_back.agrees(before, spec.sweep_dir.root)
    assert len(before) == 4
    assert follow(spec, section, second_session) == lines
    after = read(spec.sweep_dir)
    read_back.agrees(after, spec.sweep_dir.root)
    assert len(after) == 6
    assert len({run.group for run in after.values()}) == 1
    statuses = {run.texts["state"]: run.status for run in after.values()}
    assert (
        statuses
        == {
            "mlflow": {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAILED": "FAILED"},
            "wandb": {"COMPLETE": "exit 0", "PRUNED": "exit 0", "FAILED": "exit 1"},
            "tensorboard": {"COMPLETE": "STATUS_SUCCESS", "PRUNED": "STATUS_SUCCESS", "FAILED": "STATUS_FAILURE"},
        }[name]
    )
    size = sum(len(points) for run in after.values() for points in run.epochs.values())
    follow(spec, section)  # nothing is new
    assert sum(len(points) for run in read(spec.sweep_dir).values() for points in run.epochs.values()) == size


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])  # offline, W&B cannot tell what a run has
@pytest.mark.parametrize("unrecorded", ["its last epochs", "that its run was created"])
def test_what_was_logged_but_not_recorded_before_a_crash_is_not_logged_twice(name, unrecorded, tmp_path):
    pytest.importorskip(name)
    spec, section, read = spec_of(tmp_path), section_of(name, tmp_path), getattr(read_back, name)
    begin(spec)
    follow(spec, section, first_session)
    log = spec.sweep_dir.tracked(name)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (interrupted,) = {entry["trial"] for entry in lines[1:]} - {entry["trial"] for entry in lines if "state" in entry}
    kinds = ("epoch", "run") if "run" in unrecorded else ("epoch",)
    kept = [entry for entry in lines if entry.get("trial") != interrupted or not entry.keys() & set(kinds)]
    assert len(kept) < len(lines)
    log.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
    follow(spec, section, second_session)
    read_back.agrees(read(spec.sweep_dir), spec.sweep_dir.root)


@pytest.mark.parametrize("name", NAMES)
def test_confirmed_gains_and_exported_students_are_added_to_the_runs_that_ended(name, tmp_path):
    pytest.importorskip(name)
    spec, section, read = spec_of(tmp_path), section_of(name, tmp_path), getattr(read_back, name)
    begin(spec)
    follow(spec, section, first_session)
    best, running = (load_results(spec.sweep_dir.root).trials.set_index("number")["trial"][number] for number in (0, 3))
    row = {"trial": best, "method": "kd", "width": 0.5, "seeds": 3, "parameters": 1000, "size_mb": 0.25,
           "test_accuracy": 0.9, "kd_gain": 0.02, "kd_gain_low": 0.01, "kd_gain_high": 0.03, "kd_gain_tuned": math.nan,
           "verdict": "gain", "verdict_tuned": "", "more_seeds": 0}  # fmt: skip
    confirmed = {"seeds": 3, "test_accuracy": 0.9, "kd_gain": 0.02, "kd_gain_low": 0.01, "kd_gain_high": 0.03,
                 "more_seeds": 0}  # fmt: skip

    def gains(run):
        return {name.removeprefix("confirmed/"): value for name, value in run.last.items() if name.startswith("conf")}

    for seeds in (3, 5):  # a later confirmation replaces the values
        frame = pd.DataFrame([row | {"seeds": seeds}]).astype({"more_seeds": "Int64"})
        write_frame(frame, spec.sweep_dir.confirmed_frame)
        assert follow(spec, section) == section.described(spec.sweep_dir)
        run = read(spec.sweep_dir)[best]
        assert gains(run) == pytest.approx(confirmed | {"seeds": seeds})
        assert run.texts["confirmed/verdict"] == "gain"
        assert "confirmed/verdict_tuned" not in run.texts
    recorded = spec.sweep_dir.tracked(name).read_text()
    follow(spec, section)
    assert spec.sweep_dir.tracked(name).read_text() == recorded

    students = {key: tmp_path / f"followed-{key}" for key in (best, running)}
    for folder in students.values():
        folder.mkdir()
        (folder / "README.md").write_text("# The card")
        (folder / "config.json").write_text("{}")
    lines: list[str] = []
    attach(section, spec.sweep_dir, spec.goal, students, lines.append)
    assert lines[0] == f"{name}: attached to the runs of {best}"
    assert lines[1].startswith(f"{name}: warning: not attached: no finished run of {running}")
    assert len(lines) == 2
    assert name != "mlflow" or list((tmp_path / "mlruns" / "followed").rglob("student/README.md"))
    until = time.monotonic() + 30  # W&B's service may write the end of its log after the run has finished
    while not (run := read(spec.sweep_dir)[best]).files and time.monotonic() < until:
        time.sleep(0.1)
    assert set(run.files) == ({"README.md"} if name == "tensorboard" else {"README.md", "config.json"})
    assert name != "tensorboard" or run.texts["student"] == f"Exported to followed-{best}\n\n# The card"
    assert gains(run) == pytest.approx(confirmed | {"seeds": 5})


def test_a_new_place_gets_all_trials_and_an_old_one_only_what_it_lacks(tmp_path):
    pytest.importorskip("mlflow")
    spec = spec_of(tmp_path)
    begin(spec)
    (tmp_path / "other").mkdir()
    here, there = section_of("mlflow", tmp_path), section_of("mlflow", tmp_path / "other")
    follow(spec, there, first_session)
    follow(spec, here, second_session)
    read_back.agrees(read_back.mlflow(spec.sweep_dir), spec.sweep_dir.root)
    recorded = spec.sweep_dir.tracked("mlflow").read_text().splitlines()
    follow(spec, there)
    added = spec.sweep_dir.tracked("mlflow").read_text().splitlines()[len(recorded) :]
    assert sum('"run"' in line for line in added) == 2


def test_sweeps_of_the_same_name_get_experiments_of_their_own(tmp_path):
    pytest.importorskip("mlflow")
    section, groups = section_of("mlflow", tmp_path), []
    for storage in ("a", "b"):
        spec = spec_of(tmp_path).replaced(storage=str(tmp_path / storage))
        begin(spec)
        follow(spec, section, lambda spec: train(study := opened(spec), study.ask(), range(1, 2), None))
        groups.append(spec.sweep_dir)
    from mlflow import MlflowClient

    names = {one.name for one in MlflowClient(read_back.store(groups[0])).search_experiments()} - {"Default"}
    assert len(names) == 2
    assert "followed" in names


def test_a_tracker_that_fails_is_off_after_one_line_and_catches_up_in_the_next_session(tmp_path):
    pytest.importorskip("tensorboard")
    spec, section = spec_of(tmp_path), section_of("tensorboard", tmp_path)
    begin(spec)
    spec.sweep_dir.tensorboard.write_text("in the way")
    lines = follow(spec, section, first_session)
    assert lines[0] == section.described(spec.sweep_dir)[0]
    assert re.fullmatch(
        r"warning: tensorboard is off for this session: .*Not a directory.*; what is missing is logged by the next: "
        rf"kdsweep resume {spec.sweep_dir.root}; to turn it off: .* --set tracking.tensorboard=false",
        lines[1],
    )
    assert len(lines) == 2
    spec.sweep_dir.tensorboard.unlink()
    follow(spec, section, second_session)
    read_back.agrees(read_back.tensorboard(spec.sweep_dir), spec.sweep_dir.root)


def test_a_server_that_is_gone_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    spec = spec_of(tmp_path)
    begin(spec)
    lines = follow(spec, TrackingSection(mlflow="http://127.0.0.1:1"), first_session)
    assert lines[1].startswith("warning: mlflow is off for this session: ")
    assert "127.0.0.1" in lines[1]
    assert len(lines) == 2
    assert "\n" not in lines[1]


def test_a_server_that_never_answers_does_not_hold_up_the_sweep(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setattr("kdsweep.tracking.session.LONGEST_SECONDS", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    spec = spec_of(tmp_path)
    begin(spec)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        section = TrackingSection(mlflow=f"http://127.0.0.1:{silent.getsockname()[1]}")
        lines = follow(spec, section, first_session)
    assert lines[1:] == [
        "warning: mlflow is off for this session: does not answer, or is too slow; what is missing is logged by the "
        f"next: kdsweep resume {spec.sweep_dir.root}; to turn it off: kdsweep resume {spec.sweep_dir.root} "
        "--set tracking.mlflow=false"
    ]
    for thread in threading.enumerate():
        if thread.name == "tracking mlflow":
            thread.join()
    assert len(lines) == 2


@pytest.mark.slow  # a process of its own
def test_weights_and_biases_never_asks_for_a_key(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    code = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_trackers
spec = test_trackers.spec_of(Path(sys.argv[2]))
test_trackers.begin(spec)
print(test_trackers.follow(spec, test_trackers.section_of("wandb", Path(sys.argv[2])), test_trackers.first_session)[1])
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    told = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)],
        env=environment | {"NETRC": str(tmp_path / "netrc")}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert told.stdout.startswith(
        "warning: wandb is off for this session: no API key; set WANDB_API_KEY, run wandb log"
    )
    assert told.stderr == ""
