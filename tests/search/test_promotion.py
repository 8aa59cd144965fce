"""Promotion: trials pause at rungs, and the best of each rung are promoted.

The real Study runs on synthetic accuracies with simulated asynchronous workers. Nothing is trained.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState
from studies import without_times

from kdsweep.config.load import load_spec
from kdsweep.results.frames import load_results
from kdsweep.search.proposer import BoundedMemory, Proposer
from kdsweep.search.section import SearchSection
from kdsweep.search.space import SearchSpace
from kdsweep.search.stopping.asha_promotion import ASHAPromotion
from kdsweep.search.study import Study
from kdsweep.search.trial import State

EPOCHS = 18
SPACE = {"method": ["kd", "none"], "width": {"choice": [0.5, 1.0]}, "temperature": 4, "lr": {"loguniform": [1e-4, 0.1]}}


@pytest.fixture
def spec(sweep_file):
    return load_spec(sweep_file, {
        "train.epochs": EPOCHS, "search": {"trials": 24, "startup_trials": 6}, "space": SPACE,
        "scheduler": {"name": "asha-promotion", "grace_epochs": 2, "reduction_factor": 3},
    })  # fmt: skip


_open = []


@pytest.fixture(autouse=True)
def close_studies():
    yield
    while _open:
        _open.pop().close()


def opened(spec):
    spec.sweep_dir.root.mkdir(parents=True, exist_ok=True)
    spec.save(spec.sweep_dir.spec)
    _open.append(Study(spec, spec.sweep_dir, spec.search_space))
    return _open[-1]


def line(epoch, accuracy):
    return {"epoch": epoch, "val_accuracy": accuracy, "val_loss": 1.0, "train_loss": 1.0, "lr": 0.1, "seconds": 1.0,
            "parameters": 10, "size_mb": 1.0}  # fmt: skip


def accuracy_of(config, epoch):
    best = 0.7 + 0.1 * config["width"] - 0.04 * (math.log10(config["lr"]) + 2) ** 2 + 0.02 * (config["method"] == "kd")
    return round(best - 0.3 * math.exp(-epoch / 5), 4)


class CrashError(Exception):
    pass


def drive(study, workers=1, crash_after=10**9, between=False):
    """Run the search with simulated workers; crash after so many epochs, before or after a trial left its place."""
    running, order, reported = [], 0, 0
    while not study.done:
        while len(running) < workers and (trial := study.ask()) is not None:
            order += 1
            heapq.heappush(running, (order, trial))
        assert running, "nothing to run, but the study is not done"
        _, trial = heapq.heappop(running)
        if reported == crash_after:
            raise CrashError
        epoch = len(trial.values) + 1
        gives_up = study.report(trial.key, line(epoch, accuracy_of(trial.config, epoch)))
        reported += 1
        if between and reported == crash_after:
            raise CrashError
        if gives_up:
            study.leave(trial.key)
        elif epoch == EPOCHS:
            study.finish(trial.key, State.COMPLETE)
        else:
            order += 1
            heapq.heappush(running, (order, trial))


def outcome(study):
    return [
        (t.number, t.state, without_times(t.user_attrs), t.params, t.intermediate_values)
        for t in study._study.get_trials()
    ]


def lengths(study):
    return Counter(len(trial.intermediate_values) for trial in study._study.get_trials())


def test_a_rung_promotes_its_best_third_rounded_down():
    rule = ASHAPromotion(EPOCHS, grace_epochs=2)
    assert rule.milestones == [2, 6]
    for number, value in enumerate([0.5, 0.4]):
        assert rule.reached("a", str(number), 2, value)
        assert list(rule.promotable()) == []
    assert rule.reached("a", "2", 2, 0.45)
    assert list(rule.promotable()) == ["0"]
    assert not rule.reached("a", "0", 3, 0.6)
    assert list(rule.promotable()) == []
    assert [rule.reached("a", str(number), 2, 0.7) for number in (3, 4, 5)] == [True] * 3
    assert list(rule.promotable()) == ["3", "4"]  # of equal values, the earlier ones


def test_higher_rungs_are_promoted_first_and_groups_apart():
    rule = ASHAPromotion(EPOCHS, grace_epochs=2)
    for group in ("wide", "narrow"):
        for number in range(9):
            rule.reached(group, f"{group}{number}", 2, number / 10 + (group == "wide"))
    assert list(rule.promotable()) == ["wide8", "wide7", "wide6", "narrow8", "narrow7", "narrow6"]
    for number in (6, 7, 8):
        rule.reached("narrow", f"narrow{number}", 6, 0.9 - number / 100)
    assert list(rule.promotable()) == ["narrow6", "wide8", "wide7", "wide6"]


def test_every_trial_gives_its_place_up_at_a_rung_and_goes_on_from_there(spec):
    study = opened(spec)
    trial = study.ask()
    assert not study.report(trial.key, line(1, 0.5))
    assert study.report(trial.key, line(2, 0.6))
    study.leave(trial.key)
    assert (list(study.running), list(study.paused)) == ([], [trial.key])
    points = [trial]
    while (other := study.ask()).values == []:
        points.append(other)
        study.report(other.key, line(1, 0.1))
        study.report(other.key, line(2, 0.2))
        study.leave(other.key)
    assert other.values
    assert list(study.running) == [other.key]
    assert not study.report(other.key, line(3, 0.7))


@pytest.mark.parametrize("workers", [1, 5])
def test_every_group_has_a_complete_trial_and_most_trials_stop_at_the_first_rung(spec, workers):
    study = opened(spec)
    drive(study, workers)
    assert sum(study.counts.values()) == 24
    assert not study.paused
    study.close()
    trials = load_results(spec.sweep_dir.root).trials
    assert set(trials["state"]) == {"COMPLETE", "PRUNED"}
    for _, group in trials.groupby(["width", trials["method"] == "none"]):
        complete = group[group["state"] == "COMPLETE"]
        assert len(complete) >= 1
        # A third of a rung goes on, and some more because later trials are better.
        assert (group["epochs"] > 2).sum() <= len(group) / 3 + math.sqrt(len(group))
    for width, plain in trials[trials["method"] == "none"].groupby("width"):
        assert plain.loc[plain["val_accuracy"].idxmax(), "state"] == "COMPLETE", width


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize(("crash_after", "trials", "sampler"), [(1, 6, "random"), (7, 12, "tpe")])
def test_a_search_interrupted_anywhere_goes_on_as_if_it_had_not_been(
    spec, tmp_path, crash_after, trials, sampler, between
):
    """With `crash_after` 1, it is interrupted at every epoch, before or after the trial has left its place."""
    search = spec.search.model_copy(update={"trials": trials, "sampler": sampler, "startup_trials": 4})
    spec = spec.replaced(search=search)
    whole = opened(spec.replaced(storage=str(tmp_path / "whole")))
    drive(whole)
    parts = spec.replaced(storage=str(tmp_path / "parts"))
    while True:
        study = opened(parts)  # the one before is not closed, as after SIGKILL
        try:
            drive(study, crash_after=crash_after, between=between)
        except CrashError:
            continue
        break
    assert outcome(study) == outcome(whole)
    assert study.counts == whole.counts
    assert study.sweep.epochs_log.read_text() == whole.sweep.epochs_log.read_text()


def test_a_promoted_trial_that_has_not_reported_is_promoted_again_even_if_a_better_one_came(spec):
    study = opened(spec)
    trials = [study.ask() for _ in range(24)]
    wide = [trial for trial in trials if trial.config["width"] == 1.0 and trial.config["method"] == "kd"]
    for trial, accuracy in zip(wide[:3], (0.5, 0.4, 0.3), strict=True):
        study.report(trial.key, line(1, accuracy))
        assert study.report(trial.key, line(2, accuracy))
        study.leave(trial.key)
    promoted = study.ask()
    assert promoted is wide[0]
    study.report(wide[3].key, line(1, 0.9))
    study.report(wide[3].key, line(2, 0.9))
    study.leave(wide[3].key)
    again = opened(spec)
    assert set(again.paused) == {wide[1].key, wide[2].key, wide[3].key}
    assert promoted.key in again.running
    assert wide[3].key not in again.running


def test_trials_stopped_at_the_end_stay_so_when_the_search_is_extended(spec):
    study = opened(spec)
    drive(study, 3)
    before = {t.number: (t.state, t.intermediate_values) for t in study._study.get_trials()}
    study.close()
    more = opened(spec.replaced(search=spec.search.model_copy(update={"trials": 40})))
    assert not more.running
    drive(more, 3)
    after = {t.number: (t.state, t.intermediate_values) for t in more._study.get_trials()}
    assert len(after) == 40
    assert {number: after[number] for number in before} == before


def test_if_the_trial_completed_for_its_group_fails_the_next_best_takes_its_place(spec):
    points = [{"method": "kd", "width": 1.0, "lr": lr} for lr in (0.01, 0.02)]
    study = opened(spec.replaced(search=spec.search.model_copy(update={"trials": 2, "points": points})))
    for trial, accuracy in zip([study.ask(), study.ask()], (0.5, 0.6), strict=True):
        study.report(trial.key, line(1, accuracy))
        study.report(trial.key, line(2, accuracy))
        study.leave(trial.key)
    best = study.ask()
    assert (best.number, study.ask()) == (1, None)
    study.finish(best.key, State.FAILED, "diverged")
    second = study.ask()
    assert second.number == 0
    for epoch in range(3, EPOCHS + 1):
        assert not study.report(second.key, line(epoch, 0.5))  # not even at the next rung
    study.finish(second.key, State.COMPLETE)
    assert study.done


def test_a_paused_trial_keeps_its_state_and_a_stopped_one_does_not(spec):
    study = opened(spec)
    while not study.done:
        trial = study.ask()
        folder = study.sweep.trial(trial.key)
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.state.touch()
        for epoch in range(len(trial.values) + 1, EPOCHS + 1):
            if study.report(trial.key, line(epoch, accuracy_of(trial.config, epoch))):
                study.leave(trial.key)
                break
        else:
            study.finish(trial.key, State.COMPLETE)
        assert all(study.sweep.trial(key).state.exists() for key in study.paused)
    assert not list(study.sweep.trials.glob("*/state.safetensors"))


def test_samplers_see_a_paused_trial_as_stopped_at_the_epoch_where_it_paused_last():
    memory = BoundedMemory(recent=10)
    study = optuna.create_study(storage=memory, direction="maximize")
    trial, other = study.ask(), study.ask()
    memory.pause(trial._trial_id, 0.5, 2)
    assert [(t.state, t.intermediate_values) for t in study.get_trials(deepcopy=False)] == [
        (TrialState.PRUNED, {2: 0.5}), (TrialState.RUNNING, {}),
    ]  # fmt: skip
    memory.pause(trial._trial_id, 0.7, 6)
    assert study.get_trials(deepcopy=False)[0].intermediate_values == {6: 0.7}
    study.tell(trial, 0.8)
    assert [t.state for t in study.get_trials(deepcopy=False)] == [TrialState.COMPLETE, TrialState.RUNNING]
    memory.pause(other._trial_id, 0.1, 2)
    study.tell(other, state=TrialState.FAIL)
    assert [t.number for t in study.get_trials(deepcopy=False)] == [0]


def test_a_sampler_begins_although_no_trial_has_ended():
    """Paused trials count as results, otherwise TPE would draw at random until the end of the search."""
    space = SearchSpace.parse({"method": ["kd"], "lr": {"loguniform": [1e-5, 1.0]}, "temperature": 4, "alpha": 0.5})
    proposer = Proposer.of(SearchSection(trials=60, startup_trials=8), space, 0)
    rates = []
    for number in range(60):
        config = proposer.propose(number)
        rates.append(math.log10(config["lr"]))
        proposer.pause(config, [0.5, 0.9 - 0.1 * abs(rates[-1] + 3)])
    assert sum(abs(rate + 3) < 0.75 for rate in rates[-20:]) >= 15
