"""The summary that a sweep prints at its end."""

from __future__ import annotations

import re
import shutil

import pandas as pd
import pytest

from kdsweep.results.frames import load_results, write_frame
from kdsweep.storage.paths import SweepDir
from kdsweep.terminal.summary import print_summary

JUDGED = {
    "seeds": 5, "judged_seeds": 5, "level": 0.05, "margin": 0.005, "tuned_plain_test_accuracy": 0.9,
    "tuned_plain_test_accuracy_std": 0.01,
    "kd_gain": 0.02, "kd_gain_std": 0.001, "kd_gain_low": 0.018, "kd_gain_high": 0.022, "kd_gain_p": 0.001,
    "verdict": "gain", "more_seeds": 0, "failed_seeds": 0,
    "kd_gain_tuned": 0.01, "kd_gain_tuned_std": 0.005, "kd_gain_tuned_low": 0.004, "kd_gain_tuned_high": 0.016,
    "kd_gain_tuned_p": 0.01, "verdict_tuned": "gain", "more_seeds_tuned": 0, "failed_seeds_tuned": 0,
}  # fmt: skip


@pytest.fixture
def told(swept, tmp_path):
    """A sweep with a confirmation row that the test chooses."""
    sweep = SweepDir(tmp_path / "small")
    shutil.copytree(swept, sweep.root)
    (row,) = load_results(swept).confirmed.to_dict("records")

    def tell(**changes):
        write_frame(pd.DataFrame([row | JUDGED | changes]), sweep.confirmed_frame)
        return load_results(sweep.root)

    return tell


def shown(results, capsys):
    print_summary(results)
    return capsys.readouterr().out


def test_gains_are_shown_with_interval_and_verdict_and_need_no_warning(told, capsys):
    out = shown(told(), capsys)
    row = next(line for line in out.splitlines() if "+2.00" in line)
    assert re.findall(r"[+-]\d\.\d\d \(.*?\), \w+", row) == [
        "+2.00 (+1.80 to +2.20), gain",
        "+1.00 (+0.40 to +1.60), gain",
    ]
    assert "Warning" not in out
    assert "no tuned plain student" not in out


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"verdict": "undecided", "more_seeds": 12}, "over its plain twin: undecided: about 12 more seeds."),
        ({"verdict_tuned": "loss"}, "over the tuned plain student: loss."),
        ({"verdict": "same"}, "over its plain twin: no difference larger than 0.5 points."),
        ({"failed_seeds": 2}, "over its plain twin: gain (2 of 5 seeds failed)."),
    ],
)
def test_a_gain_that_is_not_established_has_a_warning(changes, warning, told, capsys):
    results = told(**changes)
    assert f"Warning: {results.confirmed['trial'][0]}: {warning}" in shown(results, capsys)


def test_a_width_without_a_plain_student_is_explained(told, capsys):
    missing = dict.fromkeys((name for name in JUDGED if "tuned" in name), float("nan")) | {"verdict_tuned": ""}
    out = shown(told(**missing), capsys)
    assert "Warning" not in out
    assert "no plain trial of that width was trained to the end" in out


def test_gains_confirmed_by_an_earlier_version_have_no_verdicts_and_say_how_to_get_them(told, capsys):
    written = told()
    old = written.confirmed.drop(columns=["kd_gain_low", "kd_gain_high", "kd_gain_p", "verdict", "more_seeds"])
    write_frame(old.assign(within_noise=False), written.sweep.confirmed_frame)
    out = shown(load_results(written.path), capsys)
    assert "+2.00 " in out
    assert "Warning" not in out
    assert "The gains have no verdicts" in out


def test_one_seed_is_told_as_a_value_without_spread_or_verdict(told, capsys):
    spreads = dict.fromkeys((name for name in JUDGED if name.endswith(("_std", "_low", "_high"))), float("nan"))
    plain = dict.fromkeys(("test_accuracy_std", "plain_test_accuracy_std"), float("nan"))
    one = {"kd_gain": -0.01, "verdict": "undecided", "more_seeds": 4, "verdict_tuned": "undecided", "seeds": 1}
    out = " ".join(shown(told(**spreads, **one, **plain, judged_seeds=1), capsys).split())
    assert "Confirmed on 1 fresh seed: value on the test split." in out
    assert "±" not in out
    assert "a negative gain is a loss" in out
    assert out.count("Warning") == 1
    assert "Warning: one seed shows no spread, so it gives no verdict; confirm at least 5 seeds." in out


def test_candidates_that_were_not_judged_are_explained_and_looks_are_mentioned(told, capsys):
    results = told(judged_seeds=6, level=0.01)
    judged = results.confirmed
    empty = {name: float("nan") for name in judged.columns if "kd_gain" in name or "plain" in name}
    other = judged.assign(**empty, verdict="", verdict_tuned="", judged_seeds=0, seeds=2)
    other["trial"] = next(key for key in results.trials["trial"] if key != judged["trial"][0])
    results.confirmed = pd.concat([judged, other], ignore_index=True)
    out = " ".join(shown(results, capsys).split())
    assert "Confirmed on 2 to 6 fresh seeds" in out
    assert "a confidence interval of their mean that allows for the repeated looks" in out
    assert "Students without gains were candidates only" in out
    assert "version 0.1.0" not in out
    width = judged["width"][0]
    assert f"Best confirmed student by group: width {width:g}: " in out


def test_the_effort_of_both_sides_is_shown(told, capsys):
    results = told()
    width = results.confirmed["width"][0]
    effort = results.effort().set_index(["width", "method"])
    method = results.confirmed["method"][0]
    ours, plain = effort.loc[(width, method)], effort.loc[(width, "none")]
    tried = [f"{row['trials']} trial{'s' if row['trials'] != 1 else ''}" for row in (ours, plain)]
    assert (
        f"Search at width {width:g}: {method} {tried[0]}, {ours['complete']} of them to the end, "
        f"{ours['epochs']} epochs; plain {tried[1]}, {plain['complete']} of them to the end, "
        f"{plain['epochs']} epochs."
    ) in " ".join(shown(results, capsys).split())


def test_the_summary_shows_the_teacher_and_how_much_smaller_students_are(swept, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # no column is left out
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
