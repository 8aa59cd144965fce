"""Trackers have what the logs of a sweep have: every trial, epoch and end, once. Read back with the real packages."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import read_back

from kdsweep.config.spec import SweepSpec
from kdsweep.results.frames import load_results
from kdsweep.search.study import State, Study
from kdsweep.tracking.section import TrackingSection
from kdsweep.tracking.session import tracked

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


def section_of(name: str, root: Path) -> TrackingSection:
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


def first_session(spec: SweepSpec) -> None:
    """Four trials: complete, stopped after an epoch, failed without one, and interrupted after two epochs."""
    study = Study(spec, spec.sweep_dir, spec.search_space)
    train(study, study.ask(), range(1, EPOCHS + 1), State.COMPLETE)
    train(study, study.ask(), range(1, 2), State.PRUNED)
    train(study, study.ask(), range(0), State.FAILED, "out of memory")
    train(study, study.ask(), range(1, 3), None)
    study.close()


def second_session(spec: SweepSpec) -> None:
    """Finish the interrupted trial, and run two more."""
    study = Study(spec, spec.sweep_dir, spec.search_space)
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


def agrees(runs: dict[str, read_back.Run], spec: SweepSpec) -> None:
    """The runs are the trials, and their epochs, settings and last values are those of the frames."""
    results = load_results(spec.sweep_dir.root)
    assert sorted(runs) == sorted(results.trials["trial"])
    for row in results.trials.to_dict("records"):
        run = runs[row["trial"]]
        epochs = results.epochs[results.epochs["trial"] == row["trial"]]
        for column in ("val_accuracy", "val_loss", "train_loss", "lr", "seconds"):
            expected = list(zip(epochs["epoch"], epochs[column], strict=True))
            assert [step for step, _ in run.epochs.get(column, [])] == [step for step, _ in expected]
            assert [value for _, value in run.epochs.get(column, [])] == pytest.approx([value for _, value in expected])
        ended = row["state"] != "RUNNING"
        if ended and len(epochs):
            numbers = {"best_val_accuracy": "val_accuracy", "epochs": "epochs", "parameters": "parameters",
                       "size_mb": "size_mb", "train_seconds": "train_seconds"}  # fmt: skip
            assert {name: run.last[name] for name in numbers} == pytest.approx(
                {name: float(row[column]) for name, column in numbers.items()}
            )
            assert run.last["best_epoch"] == epochs.loc[epochs["val_accuracy"].idxmax(), "epoch"]
        assert run.texts.get("state", "RUNNING") == row["state"]
        assert run.texts.get("error", "") == row["error"]
        for name, value in json.loads(row["config"]).items():
            assert run.params[name] == value or float(run.params[name]) == pytest.approx(value)


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_has_the_trials_and_epochs_of_the_frames_and_a_resumed_sweep_appends_to_them(name, tmp_path):
    pytest.importorskip(name)
    spec, section, read = spec_of(tmp_path), section_of(name, tmp_path), getattr(read_back, name)
    begin(spec)
    lines = follow(spec, section, first_session)
    assert lines == section.described(spec.sweep_dir)
    before = read(spec.sweep_dir)
    agrees(before, spec)
    assert len(before) == 4
    assert follow(spec, section, second_session) == lines
    after = read(spec.sweep_dir)
    agrees(after, spec)
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
