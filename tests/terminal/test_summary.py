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
