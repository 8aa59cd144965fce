"""The summary that a sweep prints at its end."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from kdsweep.results.frames import load_results, write_frame
from kdsweep.storage.paths import SweepDir
from kdsweep.terminal.summary import print_summary


@pytest.fixture
def told(swept, tmp_path):
    """A sweep with a confirmation row that the test chooses."""
    sweep = SweepDir(tmp_path / "small")
    shutil.copytree(swept, sweep.root)
    (row,) = load_results(swept).confirmed.to_dict("records")

    def tell(**changes):
        known = {"method": "kd", "kd_gain": 0.02, "kd_gain_std": 0.001, "within_noise": False,
                 "tuned_plain_test_accuracy": 0.9, "tuned_plain_test_accuracy_std": 0.01, "kd_gain_tuned": 0.01,
                 "kd_gain_tuned_std": 0.005, "within_noise_tuned": False}  # fmt: skip
        write_frame(pd.DataFrame([row | known | changes]), sweep.confirmed_frame)
        return load_results(sweep.root)

    return tell


def shown(results, capsys):
    print_summary(results)
    return capsys.readouterr().out


def test_a_gain_beyond_its_spread_has_no_warning(told, capsys):
    out = shown(told(), capsys)
    assert "Warning" not in out
    assert "no tuned plain student" not in out


@pytest.mark.parametrize("which", ["within_noise", "within_noise_tuned"])
def test_a_gain_within_its_spread_has_a_warning(which, told, capsys):
    results = told(**{which: True})
    key = results.confirmed["trial"][0]
    assert f"Warning: {key}: a gain is no larger than its spread over the seeds" in shown(results, capsys)


def test_a_width_without_a_plain_student_is_explained(told, capsys):
    missing = dict.fromkeys(("tuned_plain_test_accuracy", "tuned_plain_test_accuracy_std", "kd_gain_tuned",
                             "kd_gain_tuned_std"), float("nan"))  # fmt: skip
    out = shown(told(**missing, within_noise_tuned=True), capsys)
    assert "Warning" not in out
    assert "the sweep tried no plain student of that width" in out


def test_the_summary_shows_the_teacher_and_how_much_smaller_students_are(swept, capsys):
    results = load_results(swept)
    out = shown(results, capsys)
    best = results.distinct(1).iloc[0]
    assert f"{1 - best['size_mb'] / results.teacher['size_mb']:.2%}" in out
    assert f"{results.teacher['test_accuracy']:.2%}" in out
    norm = results.confirmed.iloc[0]["first_layer_norm"]
    assert f"before training (equal for a plain twin of the same seed): {best['trial']} {norm:.4f}" in out


def test_failed_trials_are_explained_once_per_reason(told, capsys):
    results = told()
    trials = results.trials.copy()
    assert " failed: " not in shown(results, capsys)
    trials.loc[trials.index[:4], ["state", "error"]] = [
        ["FAILED", "ValueError: x\x1b[2J (own.py:3)"], ["FAILED", "out of memory: 9 GB"],
        ["FAILED", "out of memory: 9 GB"], ["FAILED", ""],
    ]  # fmt: skip
    results.trials = trials
    out = shown(results, capsys)
    first, second, _, fourth = trials["trial"].iloc[:4]
    assert f"2 trials ({second}, ...) failed: out of memory: 9 GB" in out
    assert f"Trial {first} failed: ValueError: x\\x1b[2J (own.py:3)" in out
    assert f"Trial {fourth} failed: no reason was recorded" in out
    assert out.index("out of memory") < out.index("ValueError")


def test_many_reasons_for_failures_are_counted(told, capsys):
    results = told()
    trials = results.trials.copy()
    trials["state"], trials["error"] = "FAILED", [f"reason {number}" for number in range(len(trials))]
    results.trials = trials
    out = shown(results, capsys)
    assert out.count(" failed: reason ") == 3
    assert f"and {len(trials) - 3} more reasons, see: kdsweep results" in out
