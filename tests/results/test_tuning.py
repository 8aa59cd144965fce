"""Tuning curves: the estimate against enumerated draws, and the coverage of the band."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kdsweep.errors import KdsweepError
from kdsweep.results.tuning import distribution_band, tuning_curve


def test_the_expected_best_is_the_mean_over_all_draws_with_replacement():
    values = [0.5, 0.9, 0.6, 0.6, 0.8]
    curve = tuning_curve(values, 4)
    counted = [np.mean([max(draw) for draw in itertools.product(values, repeat=n)]) for n in range(1, 5)]
    assert curve["n"].tolist() == [1, 2, 3, 4]
    assert curve["expected_best"].tolist() == pytest.approx(counted)
    assert curve["expected_best"].tolist() == pytest.approx([0.68, 0.76, 0.8048, 0.83296])


def test_the_band_is_the_expected_best_of_the_two_outermost_distributions():
    values = np.array([0.3, 0.5, 0.6])
    least, most = distribution_band(3, 0.95)
    curve = tuning_curve(values, 2)
    # Most of the mass as low as the band allows: most[0] at 0, most[1] - most[0] at 0.3, the rest at 0.5 and 0.6.
    low = np.diff([0, *most, 1]) @ [0.0, 0.3, 0.5, 0.6]
    high = np.diff([0, *least, 1]) @ [0.3, 0.5, 0.6, 1.0]
    assert curve.loc[0, ["low", "high"]].tolist() == pytest.approx([low, high])
    assert (curve["low"] < curve["expected_best"]).all()
    assert (curve["expected_best"] < curve["high"]).all()


def test_one_draw_lies_between_the_outer_fortieths_of_its_distribution():
    (least,), (most,) = distribution_band(1, 0.95)
    assert (least, most) == pytest.approx((0.025, 0.975), abs=0.004)


@pytest.mark.parametrize("count", [5, 20])
def test_the_band_contains_the_whole_curve_in_95_percent_of_searches(count):
    rng = np.random.default_rng(1)
    n = np.arange(1, 31)
    true = n / (n + 1)  # the expected largest of n uniform draws
    held = 0
    for _ in range(1000):
        curve = tuning_curve(rng.random(count), 30)
        held += bool(((curve["low"] <= true) & (true <= curve["high"])).all())
    assert held >= 940


def test_values_on_another_scale_have_their_own_support():
    curve = tuning_curve([1.0, 3.0], 1, support=(-10.0, 10.0))
    scaled = tuning_curve([11 / 20, 13 / 20], 1)
    for name in ("expected_best", "low", "high"):
        assert curve[name][0] == pytest.approx(20 * scaled[name][0] - 10)


def test_failed_trials_are_left_out():
    assert tuning_curve([0.5, float("nan"), 0.7], 3).equals(tuning_curve([0.5, 0.7], 3))


def test_no_values_and_values_outside_the_support_are_refused():
    with pytest.raises(KdsweepError, match="at least one"):
        tuning_curve([float("nan")], 3)
    with pytest.raises(KdsweepError, match="values 0.5 to 71.3; accepted: at least one, from 0 to 1"):
        tuning_curve([71.3, 0.5], 3)
