"""Sequential testing: published bounds, and the error rate by simulation."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from kdsweep.errors import KdsweepError
from kdsweep.results.gains import judge
from kdsweep.results.sequential import LookPlan, nominal_levels, obrien_fleming, pocock


@pytest.mark.parametrize(
    ("spending", "bounds"),
    [(obrien_fleming, [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]), (pocock, [2.4380, 2.4268, 2.4101, 2.3966, 2.3859])],
)
def test_bounds_of_five_equal_looks_are_the_published_ones(spending, bounds):
    found = [NormalDist().inv_cdf(1 - level / 2) for level in nominal_levels((1, 2, 3, 4, 5), 0.05, spending)]
    assert found == pytest.approx(bounds, abs=5e-4)


def test_a_single_look_is_judged_at_the_whole_level():
    assert nominal_levels((7,), 0.05) == pytest.approx((0.05,), abs=1e-6)


def _stops(plan_or_judge, gains, seeds):
    return any(plan_or_judge(gains[:count], margin=0.0).verdict in ("gain", "loss") for count in seeds)


def test_spending_keeps_five_percent_over_repeated_looks_and_testing_at_five_percent_does_not():
    seeds = (3, 5, 7, 9, 11)
    plan = LookPlan(seeds)
    drawn = np.random.default_rng(0).standard_normal((1000, 11))
    assert np.mean([_stops(plan.judge, gains, seeds) for gains in drawn]) <= 0.05
    assert np.mean([_stops(judge, gains, seeds) for gains in drawn]) > 0.07


def test_pocock_spending_keeps_five_percent_too():
    plan = LookPlan((5, 6, 7, 8), spending=pocock)
    drawn = np.random.default_rng(2).standard_normal((1000, 8))
    assert np.mean([_stops(plan.judge, gains, plan.seeds) for gains in drawn]) <= 0.05


def test_a_clear_gain_is_found_before_the_last_look():
    plan = LookPlan((3, 5, 7, 9, 11))
    drawn = np.random.default_rng(1).normal(2.0, 1.0, (200, 11))
    ended = [next((n for n in plan.seeds if plan.judge(row[:n]).verdict == "gain"), None) for row in drawn]
    assert None not in ended
    assert np.mean(ended) < 8


def test_a_failed_seed_counts_as_looked_at_and_the_interval_is_that_of_the_look():
    plan = LookPlan((3, 5))
    verdict = plan.judge([0.01, 0.02, float("nan")])
    assert (verdict.seeds, verdict.failed, verdict.level) == (2, 1, plan.levels[0])
    assert verdict.low < judge([0.01, 0.02, float("nan")]).low


def test_a_look_that_was_not_planned_is_refused():
    with pytest.raises(KdsweepError, match="no look is planned at 4 seeds; accepted: 3, 5"):
        LookPlan((3, 5)).judge([0.1, 0.2, 0.3, 0.4])
    with pytest.raises(KdsweepError, match="increasing list"):
        LookPlan((5, 3))
