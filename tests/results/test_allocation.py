"""Distribution of trainings: exact schedules, OCBA's shares, and how often the best is found."""

from __future__ import annotations

import numpy as np
import pytest

from kdsweep.results.allocation import candidates_for, halving, next_run, next_runs, ocba, ocba_shares, ranking

NAN = float("nan")


def _spend(rule, candidates, trainings, run):
    values = {candidate: [] for candidate in candidates}
    chosen = []
    for done in range(trainings):
        candidate = rule(values, trainings - done)
        values[candidate].append(run(candidate))
        chosen.append(candidate)
    return values, chosen


def test_halving_trains_all_then_half_then_a_quarter_then_the_last_two_in_turn():
    values, chosen = _spend(halving, "abcdefgh", 18, lambda candidate: -ord(candidate))
    assert chosen == [*"abcdefgh", *"abcd", *"ab", *"ab", *"ab"]
    assert [len(found) for found in values.values()] == [5, 5, 2, 2, 1, 1, 1, 1]


def test_a_candidate_left_behind_comes_back_when_those_ahead_fall():
    values = {"a": [0.9, 0.1], "b": [0.8, 0.1], "c": [0.7], "d": [0.6]}
    assert ranking(values) == ["c", "d", "a", "b"]
    assert halving(values, 3) == "c"


def test_nothing_left_or_nobody_there_ends_it():
    assert next_run({"a": [0.5]}, 0) is None
    assert next_run({}, 5) is None
    assert next_run({"a": [NAN], "b": [NAN]}, 5) is None
    assert ocba({"a": [NAN]}, 5) is None


def test_a_single_candidate_gets_everything():
    assert halving({"a": [0.5, 0.6]}, 1) == "a"
    assert ocba({"a": [0.5, 0.6]}, 1) == "a"


@pytest.mark.parametrize("rule", [halving, ocba])
def test_a_failed_training_counts_and_a_candidate_that_only_fails_is_dropped(rule):
    values, chosen = _spend(rule, "abc", 9, lambda candidate: NAN if candidate == "a" else 0.5)
    assert chosen.count("a") == 1
    assert ranking(values) == ["b", "c"]
    assert ranking({"a": [NAN, 0.9], "b": [0.8]}) == ["a", "b"]


def test_shares_are_those_of_the_formula():
    # behind by 1 and 2, spread 1: 1 and 1/4, the best sqrt(1 + 1/16) = 1.030776; sum 2.280776
    shares = ocba_shares([3.0, 2.0, 1.0], [1.0, 1.0, 1.0])
    assert shares == pytest.approx([0.451941, 0.438447, 0.109612], abs=1e-6)
    # a spread twice as large counts four times; the best: sqrt(4^2 / 2^2 + 1/16) = 2.015564
    shares = ocba_shares([3.0, 2.0, 1.0], [1.0, 2.0, 1.0])
    assert shares[1] / shares[2] == pytest.approx(16.0)
    assert shares[0] / shares[2] == pytest.approx(4 * 2.015564, abs=1e-5)


def test_ocba_gives_the_next_training_to_whoever_lacks_most_of_its_share():
    # of 10 trainings: 4.52, 4.38 and 1.10
    assert ocba({"a": [3.0] * 5, "b": [2.0] * 2, "c": [1.0] * 2}, 1) == "b"
    assert ocba({"a": [3.0] * 2, "b": [2.0] * 5, "c": [1.0] * 2}, 1) == "a"
    assert ocba({"a": [3.0], "b": [], "c": []}, 1) == "b"


def test_several_trainings_at_once_are_a_round_and_those_running_count():
    values = {"a": [0.9], "b": [0.8], "c": [0.7], "d": [0.6]}
    assert next_runs(values, remaining=10, at_once=2) == ["a", "b"]
    assert next_runs(values, remaining=10, at_once=1, running=["a"]) == ["b"]
    assert next_runs(values, remaining=1, at_once=4) == ["a"]
    assert next_runs({"a": [], "b": []}, remaining=5, at_once=3) == ["a", "b", "a"]
    assert values["a"] == [0.9]


def test_as_many_candidates_as_halving_can_tell_apart():
    assert [candidates_for(trainings) for trainings in (0, 1, 9, 18)] == [1, 1, 4, 9]


@pytest.mark.parametrize("rule", [halving, ocba])
@pytest.mark.parametrize(("trainings", "top", "equal_top"), [(9, 5, 3), (18, 8, 3)])
def test_the_best_of_64_trials_is_named_more_often_than_with_equal_seeds_for_the_top_3(rule, trainings, top, equal_top):
    rng = np.random.default_rng(0)
    better, equal = [], []
    for _ in range(1500):
        true, noise = 0.3 * rng.standard_normal(64), 0.3 * rng.standard_normal((64, 20))
        order = np.argsort(-(true + noise[:, 0]))
        fresh = {int(trial): iter(true[trial] + noise[trial, 1:]) for trial in order[:top]}
        values, _ = _spend(rule, list(fresh), trainings, lambda trial, fresh=fresh: next(fresh[trial]))
        better.append(ranking(values)[0] == true.argmax())
        means = true[order[:3]] + noise[order[:3], 1 : 1 + trainings // equal_top].mean(axis=1)
        equal.append(order[means.argmax()] == true.argmax())
    assert np.mean(better) > np.mean(equal) + 0.01
