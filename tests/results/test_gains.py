"""Verdicts on gains: each part against known numbers; error rates and power by simulation."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from kdsweep.results import student_t
from kdsweep.results.gains import MOST_SEEDS, holm, interval, judge, judge_all, p_values

NAN = float("nan")


# Student's t, against the printed tables.


@pytest.mark.parametrize(
    ("p", "degrees", "t"),
    [(0.05, 1, 12.706205), (0.05, 2, 4.302653), (0.05, 3, 3.182446), (0.05, 4, 2.776445), (0.05, 9, 2.262157),
     (0.01, 4, 4.604095), (0.001, 7, 5.407883), (0.10, 30, 1.697261)],
)  # fmt: skip
def test_quantiles_of_t_are_those_of_the_tables(p, degrees, t):
    assert student_t.quantile(p, degrees) == pytest.approx(t, abs=1e-6)
    assert student_t.two_sided_p(t, degrees) == pytest.approx(p, abs=1e-6)


def test_many_degrees_of_freedom_approach_the_normal_distribution():
    assert student_t.quantile(0.05, 100_000) == pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-4)


# p


def test_p_is_that_of_every_sign_flip_counted_by_hand():
    gains = np.array([0.4, 1.1, -0.2, 0.9, 0.7, 1.3, 0.5])
    sums = [
        abs(sum(s * g for s, g in zip(signs, gains, strict=True))) for signs in itertools.product((1, -1), repeat=7)
    ]
    expected = sum(value >= abs(gains.sum()) - 1e-12 for value in sums) / 2**7
    assert p_values(gains[None])[0] == pytest.approx(expected) == pytest.approx(4 / 128)


def test_with_five_seeds_p_is_that_of_t_with_room_for_skew():
    # mean 3, std sqrt(2.5): t = 3 / sqrt(0.5) = 4.2426 with 4 degrees of freedom, p = 0.013236
    assert p_values(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]))[0] == pytest.approx(1.4 * 0.013236, abs=1e-5)


def test_sign_flips_count_only_where_they_can_reach_the_corrected_level():
    six = np.array([[1.0, 1.1, 1.2, 0.9, 0.8, 1.05]])
    assert p_values(six)[0] == 2 / 2**6
    assert p_values(six, family=8)[0] < 0.001  # 2 / 2^6 is more than 0.05 / 8


def test_equal_differences_have_the_p_of_sign_flips():
    assert p_values(np.full((1, 3), 0.01))[0] == 2 / 2**3
    assert p_values(np.full((1, 8), 0.01))[0] == 2 / 2**8


def test_p_of_many_seeds_is_sampled_and_never_zero():
    gains = np.random.default_rng(0).normal(0.5, 1.0, (1, 40))
    t = gains.mean() / gains.std(ddof=1) * math.sqrt(40)
    assert p_values(gains)[0] == pytest.approx(1.4 * float(student_t.two_sided_p(t, 39)), rel=0.5)
    assert p_values(np.full((1, 40), 1.0) + gains / 100)[0] == 1 / 2**15


def test_holm_adjusts_in_order_and_keeps_the_order_given():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


# The interval


def test_below_five_seeds_the_interval_is_that_of_t():
    # mean 2, std 1: half width 4.302653 / sqrt(3)
    assert interval(np.array([1.0, 2.0, 3.0])) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_bca_of_many_symmetric_values_is_the_t_interval():
    gains = np.array([NormalDist(5, 2).inv_cdf((i + 0.5) / 200) for i in range(200)])
    half = student_t.quantile(0.05, 199) * gains.std(ddof=1) / math.sqrt(200)
    assert interval(gains) == pytest.approx((5 - half, 5 + half), abs=0.02)


def test_bca_reaches_further_on_the_side_of_the_long_tail():
    low, high = interval(np.array([0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.4, 0.6, 1.2, 2.9]))
    mean = 0.6
    assert high - mean > 1.4 * (mean - low)


def test_the_interval_is_the_same_every_time_and_follows_scale_and_shift():
    gains = np.random.default_rng(1).exponential(size=9)
    low, high = interval(gains)
    assert interval(gains) == (low, high)
    assert interval(10 * gains + 3) == pytest.approx((10 * low + 3, 10 * high + 3))
    assert interval(-gains) == pytest.approx((-high, -low), abs=0.02)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_of_normal_differences_misses_the_mean_in_5_to_9_percent(seeds):
    drawn = np.random.default_rng(0).standard_normal((1500, seeds))
    ends = np.array([interval(gains) for gains in drawn])
    assert 0.03 <= np.mean((ends[:, 0] > 0) | (ends[:, 1] < 0)) <= 0.09


# Verdicts


def test_a_gain_and_a_loss_are_told_in_points():
    gain = judge([0.010, 0.012, 0.009, 0.013, 0.011])
    assert (gain.verdict, gain.more_seeds, gain.seeds) == ("gain", 0, 5)
    assert gain.text("accuracy") == "+1.10 points (95 % CI +0.92 to +1.28), gain"
    loss = judge([-0.010, -0.012, -0.009, -0.013, -0.011])
    assert loss.verdict == "loss"
    assert loss.text("accuracy").startswith("-1.10 points (95 % CI -1.28 to -0.92), loss")


def test_a_small_interval_around_zero_is_no_difference_larger_than_the_margin():
    gains = [0.001, -0.001, 0.002, -0.002, 0.0005]
    same = judge(gains)
    assert same.verdict == "same"
    assert same.text("accuracy").endswith(", no difference larger than 0.5 points")
    assert judge(gains, margin=0.001).verdict == "undecided"


def test_a_gain_of_half_its_spread_needs_about_thirty_more_seeds():
    verdict = judge([0.0039 + 0.0083, 0.0039 - 0.0083, 0.0039])
    assert verdict.verdict == "undecided"
    assert 30 <= verdict.more_seeds <= 40
    assert verdict.text("accuracy").endswith(f"undecided: about {verdict.more_seeds} more seeds")


def test_an_interval_above_zero_that_many_comparisons_leave_undecided_is_explained():
    gains = [0.010, 0.030, 0.020, 0.025]
    assert judge(gains).verdict == "gain"
    verdict = judge(gains, family=8)
    assert verdict.low > 0
    assert verdict.text("accuracy").startswith(
        "+2.12 points (95 % CI +0.77 to +3.48), undecided (corrected p 0.17): about 3"
    )


def test_a_mean_of_zero_with_a_large_spread_needs_100_or_more_seeds():
    verdict = judge([0.05, -0.05, 0.05, -0.05])
    assert (verdict.verdict, verdict.more_seeds) == ("undecided", MOST_SEEDS)
    assert verdict.text("accuracy").endswith("undecided: 100 or more seeds would be needed")


def test_the_estimated_number_of_seeds_decides_in_about_four_of_five_cases():
    rng = np.random.default_rng(0)
    for mean, std, seeds in [(0.010, 0.012, 5), (0.0, 0.006, 5), (0.0039, 0.0083, 3)]:
        gains = rng.standard_normal(seeds)
        gains = (gains - gains.mean()) / gains.std(ddof=1) * std + mean
        more = judge(gains).more_seeds
        assert more > 0
        total = seeds + more
        decided = [judge(rng.normal(mean, std, total)).verdict != "undecided" for _ in range(300)]
        assert 0.65 <= np.mean(decided) <= 0.95


def test_one_seed_or_none_decides_nothing():
    one = judge([0.05])
    assert (one.verdict, one.p, one.more_seeds) == ("undecided", 1.0, 4)
    assert math.isnan(one.low)
    assert one.text("accuracy") == "+5.00 points (one seed), undecided: at least 4 more seeds"
    none = judge([NAN, NAN])
    assert (none.seeds, none.failed, none.verdict) == (0, 2, "undecided")
    assert none.text("accuracy") == "not measured, undecided: at least 5 more seeds (2 of 2 seeds failed)"


def test_failed_seeds_are_left_out_and_reported():
    with_failed = judge([0.010, NAN, 0.012, 0.009, 0.013, 0.011])
    without = judge([0.010, 0.012, 0.009, 0.013, 0.011])
    assert (with_failed.mean, with_failed.p, with_failed.seeds, with_failed.failed) == (without.mean, without.p, 5, 1)
    assert with_failed.text("accuracy").endswith(", gain (1 of 6 seeds failed)")


def test_equal_differences_decide_only_once_sign_flips_can():
    three = judge([0.01] * 3)
    assert (three.verdict, three.more_seeds) == ("undecided", 3)
    assert judge([0.01] * 6).verdict == "gain"
    assert judge([0.0] * 3).verdict == "undecided"
    assert judge([0.0] * 6).verdict == "same"


def test_holm_judges_a_family_stricter_than_one_and_no_stricter_than_bonferroni():
    gains = {
        "a": [0.010, 0.013, 0.007, 0.012, 0.009],
        "b": [0.006, 0.0025, 0.0085, 0.0015, 0.0045],
        "c": [0.01, -0.01, 0.0],
    }
    together = judge_all(gains)
    assert list(together) == ["a", "b", "c"]
    for key, values in gains.items():
        assert judge(values).p <= together[key].p <= judge(values, family=3).p
    assert together["b"].p == pytest.approx(2 * judge(gains["b"]).p)
    assert judge(gains["b"]).verdict == "gain"
    assert together["b"].verdict == "undecided"


# Error rates: 2,000 confirmations each


def _skewed(rng, shape):
    return (rng.exponential(size=shape) - rng.exponential(size=shape)) / math.sqrt(2)


def _skewed_on_one_side(rng, shape):
    return (1 - rng.exponential(size=shape) - rng.standard_normal(shape)) / math.sqrt(2)


def _normal(rng, shape):
    return rng.standard_normal(shape)


def _found(gains):
    """[N, family] whether each verdict is `gain` or `loss`; confirmations with a large p are skipped."""
    repeats, family, seeds = gains.shape
    ps = p_values(gains.reshape(-1, seeds), family=family).reshape(repeats, family)
    decided = np.zeros((repeats, family), dtype=bool)
    for index in np.flatnonzero(ps.min(axis=1) * family <= 0.05):
        verdicts = judge_all(dict(enumerate(gains[index])))
        decided[index] = [verdicts[student].verdict in ("gain", "loss") for student in range(family)]
    return decided


@pytest.mark.parametrize("noise", [_normal, _skewed, _skewed_on_one_side])
@pytest.mark.parametrize("family", [1, 8])
def test_without_a_gain_at_most_one_confirmation_of_twenty_has_a_false_verdict(noise, family):
    rng = np.random.default_rng(1)
    for seeds in range(2, 11):
        false = _found(noise(rng, (2000, family, seeds))).any(axis=1)
        assert false.mean() <= 0.05, seeds


def test_a_gain_of_two_spreads_is_found_with_five_seeds():
    gains = _normal(np.random.default_rng(0), (2000, 1, 5)) + 2
    assert _found(gains).mean() >= 0.8
    assert all(judge(row[0]).mean > 0 for row in gains[:50])


def test_a_gain_of_twice_the_margin_is_hardly_ever_called_no_difference():
    rng = np.random.default_rng(0)
    verdicts = [judge(rng.normal(0.010, 0.004, seeds)).verdict for seeds in (3, 5, 8) for _ in range(500)]
    assert verdicts.count("same") <= 0.01 * len(verdicts)


def test_a_difference_as_large_as_the_margin_is_rarely_called_no_difference():
    rng = np.random.default_rng(0)
    verdicts = [judge(rng.normal(0.005, 0.002, seeds)).verdict for seeds in (3, 5, 8) for _ in range(500)]
    assert verdicts.count("same") <= 0.05 * len(verdicts)
