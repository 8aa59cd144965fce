"""Tuning curves of a sweep: which trials count, and how they are grouped."""

from __future__ import annotations

import pandas as pd
import pytest

from kdsweep.config.spec import SweepSpec
from kdsweep.results.frames import load_results
from kdsweep.results.tuning import random_trials, tuning_curve, tuning_curves


def spec_of(**sections):
    return SweepSpec.model_validate({
        "name": "told", "dataset": {"name": "mnist_mini"}, "teacher": {"model": "mnist_teacher"},
        "student": {"model": "mnist_student"},
        "space": {"method": ["kd", "none"], "width": {"choice": [0.5, 1.0]}, "lr": {"loguniform": [1e-3, 1e-1]}},
    } | sections)  # fmt: skip


def trials_of(*rows):
    frame = pd.DataFrame(rows, columns=["method", "width", "state", "val_accuracy"])
    return frame.assign(number=range(len(frame)), trial=[f"{number:04d}" for number in range(len(frame))], space=0)


TRIALS = trials_of(
    ("kd", 1.0, "COMPLETE", 0.9),
    ("kd", 1.0, "COMPLETE", 0.8),
    ("none", 1.0, "COMPLETE", 0.7),
    ("kd", 0.5, "PRUNED", 0.5),
    ("none", 1.0, "PRUNED", 0.6),
    ("kd", 1.0, "FAILED", float("nan")),
    ("kd", 1.0, "RUNNING", 0.95),
    ("none", 0.5, "COMPLETE", 0.4),
    ("kd", 1.0, "COMPLETE", 0.85),
)


def numbers(**search):
    return [int(key) for key in random_trials(TRIALS, spec_of(search=search))]


def test_of_a_random_search_every_trial_but_the_points_counts():
    assert numbers(sampler="random", trials=9) == list(range(9))
    assert numbers(sampler="random", trials=9, points=[{"method": "kd"}, {"method": "kd"}]) == list(range(2, 9))


def test_of_tpe_the_startup_trials_count_without_points():
    assert numbers(startup_trials=6, trials=9) == [0, 1, 2, 3, 4, 5]
    assert numbers(startup_trials=5, trials=9, points=[{"method": "kd"}]) == [1, 2, 3, 4]


def test_plain_trials_beyond_the_startup_of_their_width_do_not_count():
    plain = trials_of(*[("none", 1.0, "COMPLETE", 0.7)] * 5, ("none", 0.5, "COMPLETE", 0.7))
    # Six startup trials over two widths are three per width.
    assert random_trials(plain, spec_of(search={"startup_trials": 6})) == ["0000", "0001", "0002", "0005"]
    assert len(random_trials(plain, spec_of(search={"startup_trials": 6, "plain_share": 0}))) == 6


@pytest.mark.parametrize("sampler", ["grid", "my_parts:Sampler"])
def test_other_samplers_have_no_random_trials(sampler):
    space = {"method": ["kd", "none"], "width": {"choice": [0.5, 1.0]}, "alpha": 0.5}
    spec = spec_of(space=space, search={"sampler": sampler})
    assert random_trials(TRIALS, spec) == []
    assert tuning_curves(TRIALS, spec, 3, 0.95).empty


def test_each_method_has_a_curve_of_its_ended_trials():
    spec = spec_of(search={"sampler": "random", "trials": 9})
    curves = tuning_curves(TRIALS, spec, 4, 0.95)
    assert list(curves.columns) == ["method", "n", "expected_best", "low", "high", "trials"]
    for method, values in (("kd", [0.9, 0.8, 0.5, 0.85]), ("none", [0.7, 0.6, 0.4])):
        found = curves[curves["method"] == method].reset_index(drop=True)
        pd.testing.assert_frame_equal(found[["n", "expected_best", "low", "high"]], tuning_curve(values, 4))
        assert set(found["trials"]) == {len(values)}


def test_the_best_of_a_loss_is_the_smallest_and_has_no_band():
    spec = spec_of(search={"sampler": "random"}, objective={"metric": "val_loss"})
    losses = TRIALS.rename(columns={"val_accuracy": "val_loss"})
    curves = tuning_curves(losses[losses["method"] == "none"], spec, 2, 0.95)
    # Of 0.7, 0.6 and 0.4: the mean, then the smaller of two draws with replacement.
    assert list(curves["expected_best"]) == pytest.approx([1.7 / 3, (5 * 0.4 + 3 * 0.6 + 0.7) / 9])
    assert curves[["low", "high"]].isna().all(axis=None)


def test_results_give_curves_of_all_widths_or_of_one(swept):
    results = load_results(swept)
    curves = results.tuning_curves(n=5)
    assert set(curves["method"]) <= {"kd", "hint", "none"}
    assert not curves.empty
    assert curves["trials"].max() <= 4  # five startup trials, of which one is a point
    narrow = results.tuning_curves(n=5, width=0.25)
    assert set(narrow["method"]) <= set(results.trials.loc[results.trials["width"] == 0.25, "method"])
