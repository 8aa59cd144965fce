"""This version reads, resumes, confirms and exports sweep directories written by kdsweep 0.1.0 (tests/data/)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import kdsweep

WRITTEN = Path(__file__).parents[1] / "data"
BEST = ("0002-d39166", 0.7375)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WRITTEN / "finished_0.1.0", tmp_path / "runs" / "finished"))


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WRITTEN / "interrupted_0.1.0", tmp_path / "runs" / "interrupted"))


def test_frames_and_logs_give_the_same_results(finished):
    written = kdsweep.load_results(finished)
    best = written.best()
    assert (best["trial"][0], best["val_accuracy"][0]) == BEST
    assert dict(written.trials["state"].value_counts()) == {"COMPLETE": 3, "PRUNED": 3}
    for frame in finished.glob("[te]*.parquet"):
        frame.unlink()
    remade = kdsweep.load_results(finished)
    common = [name for name in written.trials.columns if name in remade.trials.columns]
    assert set(written.trials.columns) <= set(remade.trials.columns)
    pd.testing.assert_frame_equal(written.trials[common], remade.trials[common])


def test_confirmed_gains_are_read_without_verdicts(finished):
    (row,) = kdsweep.load_results(finished).confirmed.to_dict("records")
    assert (row["kd_gain"], row["kd_gain_std"]) == pytest.approx((-0.128, 0.108187), abs=1e-6)
    assert (row["verdict"], row["verdict_tuned"]) == ("", "")
    assert pd.isna([row[name] for name in ("kd_gain_low", "kd_gain_high", "kd_gain_p", "more_seeds", "margin")]).all()
    assert "within_noise" not in row


@pytest.mark.slow
def test_confirming_again_adds_verdicts_and_trains_nothing(finished, local_ray):
    runs = {path: path.stat().st_mtime_ns for path in finished.glob("confirmed/*/result.json")}
    (row,) = kdsweep.confirm(finished).confirmed.to_dict("records")
    # Differences of -5.15 and -20.45 points: two seeds decide nothing.
    assert row["kd_gain"] == pytest.approx(-0.128)
    assert (row["verdict"], row["margin"]) == ("undecided", 0.005)
    assert row["kd_gain_low"] < -1 < row["kd_gain_high"] - row["kd_gain_low"]
    assert runs == {path: path.stat().st_mtime_ns for path in finished.glob("confirmed/*/result.json")}


def test_exported_students_load(finished, tmp_path):
    (folder,) = kdsweep.load_results(finished).export(tmp_path / "students", top=1)
    assert sum(p.numel() for p in kdsweep.load_student(folder).parameters()) == 9098


@pytest.mark.slow
def test_a_finished_sweep_is_extended_and_confirmed(finished, local_ray):
    before = kdsweep.load_results(finished).trials
    after = kdsweep.resume(finished, trials=8)
    assert len(after.trials) == 8
    assert set(after.trials["state"]) <= {"COMPLETE", "PRUNED"}
    kept = after.trials.head(len(before))
    pd.testing.assert_series_equal(kept["val_accuracy"], before["val_accuracy"])
    confirmed = kdsweep.confirm(finished, top=3, seeds=2).confirmed
    assert len(confirmed) == 3
    assert confirmed["test_accuracy"].between(0.2, 1).all()


def test_an_interrupted_trial_continues_from_its_saved_epoch(interrupted, local_ray):
    before = kdsweep.load_results(interrupted)
    (running,) = before.trials.loc[before.trials["state"] == "RUNNING", "trial"]
    done = before.epochs[before.epochs["trial"] == running]
    after = kdsweep.resume(interrupted)
    assert "RUNNING" not in set(after.trials["state"])
    epochs = after.epochs[after.epochs["trial"] == running].reset_index(drop=True)
    assert list(epochs["epoch"]) == list(range(1, len(epochs) + 1))
    assert len(epochs) > len(done)
    same = ["epoch", "train_loss", "val_accuracy", "seconds"]
    pd.testing.assert_frame_equal(epochs[same].head(len(done)), done[same].reset_index(drop=True))
