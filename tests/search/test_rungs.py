"""Which trials continue at a rung: ties, widths of a range, and many small groups."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kdsweep.config.load import load_spec
from kdsweep.search.baseline import PlainLeaders, stopping_group
from kdsweep.search.space import SearchSpace
from kdsweep.search.stopping import STOPPING_RULES
from kdsweep.search.stopping.asha import ASHA
from kdsweep.search.stopping.asha_promotion import ASHAPromotion
from kdsweep.search.stopping.ranking import AdjustedRung, PlainRung
from kdsweep.search.study import Study


@pytest.mark.parametrize(
    ("first_rung", "epochs", "milestones"),
    [("ninth", 20, [3, 9]), ("eighteenth", 20, [1, 3, 9]), ("eighteenth", 9, [1, 3]), ("eighteenth", 36, [2, 6, 18])],
)
def test_the_first_rung_is_a_ninth_or_an_eighteenth_of_the_budget(first_rung, epochs, milestones):
    assert ASHA(epochs, first_rung=first_rung).milestones == milestones
    assert ASHA(epochs, first_rung=first_rung, grace_epochs=4).milestones[0] == 4


@pytest.mark.parametrize("rule", [ASHA(9), ASHA(9, pooled=True)])
def test_of_equal_values_no_more_continue_than_there_are_places(rule):
    stopped = [rule.reached("a", str(number), 1, 0.1) for number in range(30)]
    assert stopped.count(False) == 10
    assert not stopped[0]


def test_a_tie_is_won_by_the_earlier_trial():
    rule = ASHA(9)
    assert [rule.reached("a", str(n), 1, value) for n, value in enumerate([0.5, 0.5, 0.6, 0.6])] == [
        False, True, False, True,
    ]  # fmt: skip


def test_a_plain_trial_that_is_only_as_good_as_the_best_is_not_protected():
    leaders = PlainLeaders(SearchSpace.parse({"method": ["kd", "none"], "temperature": 4}))
    plain = {"method": "none", "width": 1.0}
    for key, score in (("a", 0.5), ("b", 0.5), ("c", 0.4)):
        leaders.note(key, plain, score)
    assert [leaders.protects(key, plain) for key in "abc"] == [True, False, False]
    leaders.ignore("a")
    assert [leaders.protects(key, plain) for key in "abc"] == [False, True, False]


def test_both_rungs_rank_alike_if_there_is_nothing_to_adjust():
    values = np.random.default_rng(0).integers(0, 40, 200) / 40
    rungs = [PlainRung(), AdjustedRung()]
    for number, value in enumerate(values):
        answers = set()
        for rung in rungs:
            rung.enter(str(number), float(value), "a", 0.0)
            rung.wait(str(number))
            answers.add((rung.admits(str(number), len(rung) // 3), *rung.promotable(len(rung) // 3)))
            if number % 7 == 6:
                rung.leave(str(number - 3))
        assert len(answers) == 1


def test_the_trend_over_the_logarithm_of_the_width_is_subtracted():
    rung = AdjustedRung()
    extra = [0.0, 0.01, -0.02, 0.01]
    for number, width in enumerate([0.25, 0.5, 0.5, 1.0]):
        rung.enter(str(number), 0.8 + 0.1 * math.log2(width) + extra[number], "a", math.log(width))
        if len(rung) == 2:  # two widths show no trend, so only the mean is subtracted
            assert rung.adjusted() == pytest.approx([-0.055, 0.055])
    expected = np.array(extra) - np.polyval(np.polyfit([-2, -1, -1, 0], extra, 1), [-2, -1, -1, 0])
    assert rung.adjusted() == pytest.approx(expected)


def simulated(rule, seed, trials=300):
    """Report trials one after another; return the widths and the last epochs of all trials, and of those promoted."""
    draw = np.random.default_rng(seed)
    widths = np.exp(draw.uniform(math.log(0.25), 0, trials))
    ends = []
    for number, width in enumerate(widths):
        quality = 0.7 + 0.1 * math.log2(width) + 0.02 * draw.standard_normal()
        rule.note_width(str(number), width)
        for epoch in range(1, 19):
            if rule.reached("all", str(number), epoch, quality - 0.3 * math.exp(-epoch / 5)):
                break
        ends.append(epoch)
    return widths, np.array(ends)


@pytest.mark.parametrize("seed", range(3))
def test_about_a_third_of_each_tercile_of_widths_continues(seed):
    widths, ends = simulated(ASHA(18), seed)
    terciles = np.searchsorted(np.quantile(widths, [1 / 3, 2 / 3]), widths)
    for tercile in range(3):
        assert 0.2 < (ends[terciles == tercile] > 2).mean() < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_about_a_third_of_each_tercile_of_widths_is_promotable(seed):
    rule = ASHAPromotion(18)
    widths, _ = simulated(rule, seed)
    terciles = np.searchsorted(np.quantile(widths, [1 / 3, 2 / 3]), widths)
    promotable = [int(key) for key in rule.promotable()]
    assert len(promotable) == 100
    assert all(22 <= (terciles[promotable] == tercile).sum() <= 45 for tercile in range(3))


def test_trials_of_all_widths_of_a_range_are_compared_and_plain_ones_apart(sweep_file):
    space = {"method": ["kd", "none"], "width": {"loguniform": [0.25, 1]}, "temperature": 4}
    points = [{"method": method, "width": width} for method in ("kd", "none") for width in (0.3, 0.4, 0.5, 0.6)]
    spec = load_spec(sweep_file, {"space": space, "search": {"trials": 8, "points": points}, "train.epochs": 9})
    groups = [stopping_group(spec.search_space, {**point}, ["width"]) for point in points]
    assert len(set(groups)) == 2
    study = Study(spec, spec.sweep_dir, spec.search_space)
    trials = [study.ask() for _ in range(4)]
    line = {"epoch": 1, "val_loss": 1.0, "train_loss": 1.0, "lr": 0.1, "seconds": 1.0}
    # The fourth has the best accuracy, but is no better than its width explains.
    stopped = [
        study.report(t.key, {**line, "val_accuracy": v}) for t, v in zip(trials, (0.5, 0.4, 0.6, 0.61), strict=True)
    ]
    study.close()
    assert stopped == [False, True, False, True]


def small_groups(rule, seed):
    """Forty groups of four trials, of very different accuracy; return the number of epochs of each trial, by group."""
    draw = np.random.default_rng(seed)
    ends = {}
    for number in draw.permutation(160).tolist():
        group = number % 40
        quality = 0.5 + 0.01 * group + 0.02 * draw.standard_normal()
        for epoch in range(1, 19):
            if rule.reached(group, str(number), epoch, quality - 0.3 * math.exp(-epoch / 5)):
                break
        ends.setdefault(group, []).append(epoch)
    return ends


@pytest.mark.parametrize("seed", range(3))
def test_pooled_small_groups_train_about_a_ninth_of_the_trials_to_the_end(seed):
    complete = {
        pooled: [sum(end == 18 for end in ends) for ends in small_groups(ASHA(18, pooled=pooled), seed).values()]
        for pooled in (False, True)
    }
    assert sum(complete[False]) >= 40  # the first of each group at each rung
    assert 160 / 9 - 8 <= sum(complete[True]) <= 160 / 9 + 8
    ends = small_groups(ASHA(18, pooled=True), seed)
    bad = [end for group in range(20) for end in ends[group]]
    good = [end for group in range(20, 40) for end in ends[group]]
    assert 0.5 < np.mean(bad) / np.mean(good) < 2  # bad groups are not emptied in favour of good ones


def test_pooled_groups_share_the_last_promotion(sweep_file):
    assert STOPPING_RULES.create("asha-promotion", 18, pooled=True).compared_in("a") == "pooled"
    rules = {"name": {"name": "asha-promotion", "pooled": True}, "grace_epochs": 2}
    points = [{"method": "kd", "width": width} for width in (0.25, 0.5)]
    search = {"trials": 2, "points": points, "plain_share": 0}
    spec = load_spec(sweep_file, {"search": search, "scheduler": rules, "train.epochs": 4})
    study = Study(spec, spec.sweep_dir, spec.search_space)
    for trial in (study.ask(), study.ask()):
        for epoch in (1, 2):
            gives_up = study.report(trial.key, {"epoch": epoch, "val_accuracy": trial.config["width"], "seconds": 1.0})
        assert gives_up
        study.leave(trial.key)
    assert list(study.running) == [study.ask().key]
    assert len(study.paused) == 1
    study.close()
