"""Budgets: when a search stops, what it counts, and how it goes on with more."""

from __future__ import annotations

import json

import pytest
from studies import opened

from kdsweep.config.changes import changed_spec
from kdsweep.config.load import load_spec
from kdsweep.search import budget as budgets
from kdsweep.search.trial import State

EPOCHS = 9


class Clock:
    """A clock for tests."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(budgets, "time", clock)
    return clock


@pytest.fixture
def spec(sweep_file):
    overrides = {"train.epochs": EPOCHS, "search.trials": 40, "search.points": [], "scheduler.grace_epochs": 3}
    return load_spec(sweep_file, overrides)


def limited(spec, **limits):
    return spec.replaced(search=spec.search.model_copy(update=limits))


def drive(study, lanes=3, seconds=0.0, clock=None, limit=10_000):
    """Run a search as the driver does, `lanes` trials at a time, one epoch each in turn; at most `limit` epochs."""
    running, epochs = [], 0
    while epochs < limit:
        while len(running) < lanes and (trial := study.ask()) is not None:
            running.append(trial)
        if not running:
            break
        trial = running.pop(0)
        epochs += 1
        if clock:
            clock.now += seconds
        epoch = len(trial.values) + 1
        accuracy = (int(trial.key[-6:], 16) % 1000) / 1000 * epoch / EPOCHS
        report = {"epoch": epoch, "val_accuracy": accuracy, "seconds": 0.5, "parameters": 10}
        if study.report(trial.key, report):
            study.finish(trial.key, State.PRUNED)
        elif epoch == EPOCHS:
            study.finish(trial.key, State.COMPLETE)
        elif study.over_budget(trial.key):
            study.give_back(trial.key)
        else:
            running.append(trial)
    return epochs


def logged(spec):
    return [json.loads(line) for line in spec.sweep_dir.epochs_log.read_text().splitlines()]


def complete_plain(study):
    frozen = [trial for trial in study._study.get_trials() if trial.state.name == "COMPLETE"]
    return {config["width"] for trial in frozen if (config := trial.user_attrs["config"])["method"] == "none"}


def test_a_search_stops_when_its_epochs_are_spent_and_exceeds_them_only_for_one_plain_trial_per_width(spec):
    study = opened(limited(spec, max_epochs=60))
    drive(study)
    assert study.done
    assert 0 < sum(study.counts.values()) < 40
    over = {entry["trial"] for entry in logged(spec)[60 + 2 :]}  # the other two lanes each report once more
    configs = {trial.user_attrs["key"]: trial.user_attrs["config"] for trial in study._study.get_trials()}
    exempt = [configs[key] for key in over]
    assert {config["method"] for config in exempt} <= {"none"}
    assert len({config["width"] for config in exempt}) == len(exempt)
    assert complete_plain(study) == {0.25, 0.5}


def test_paused_trials_continue_at_their_epoch_with_a_larger_budget(spec):
    study = opened(limited(spec, max_epochs=40))
    drive(study)
    study.close()
    paused = {key: len(trial.values) for key, trial in study.running.items()}
    assert paused
    assert all(0 < epochs < EPOCHS for epochs in paused.values())
    assert opened(limited(spec, max_epochs=40)).ask() is None
    more = opened(limited(spec, max_epochs=70))
    assert not more.done
    first = more.ask()
    assert len(first.values) == paused[first.key]
    more.give_back(first.key)
    drive(more)
    assert more.done
    assert 70 <= len(logged(spec)) <= 70 + 2 * EPOCHS
    assert len({(entry["trial"], entry["epoch"]) for entry in logged(spec)}) == len(logged(spec))


@pytest.mark.parametrize("limits", [{"max_epochs": 0}, {"max_hours": 0.0}])
def test_without_limits_every_trial_runs(spec, limits):
    study = opened(limited(spec, trials=6, **limits))
    drive(study)
    assert sum(study.counts.values()) == 6
    assert study.budget.left() == ""
    assert study.budget.share == 0


def test_hours_add_up_over_sessions_and_no_clock_is_compared_with_another(spec, clock):
    sweep = limited(spec, max_hours=0.1)
    first = opened(sweep)
    drive(first, seconds=10, clock=clock, limit=20)
    first.close()
    clock.now = 5.0  # another machine, or a clock that was set back
    second = opened(sweep)
    assert second.budget.seconds == pytest.approx(200, abs=0.01)
    assert second.budget.left() == "0.04 of 0.1 hours left"
    clock.now += 10_000  # before the search begins, nothing counts
    epochs = drive(second, seconds=10, clock=clock)
    assert second.done
    assert second.budget.limits() == "search.max_hours (0.1)"
    assert 16 <= epochs <= 16 + 2 * EPOCHS


def test_a_crash_loses_only_the_time_since_the_last_entry(spec, clock):
    study = opened(limited(spec, max_hours=1.0))
    drive(study, seconds=4, clock=clock, limit=5)
    with spec.sweep_dir.search_time.open("a") as log:  # not closed, and the next entry is torn
        log.write('{"seco')
    assert opened(limited(spec, max_hours=1.0)).budget.seconds == pytest.approx(16)


def test_limits_may_change_in_an_existing_sweep(spec):
    spec.save(spec.sweep_dir.spec)
    changed = changed_spec(spec.sweep_dir, {"search.max_hours": 2, "search.max_epochs": None})
    assert (changed.search.max_hours, changed.search.max_epochs) == (2.0, 0)


def test_null_is_no_limit_and_a_negative_one_is_refused(sweep_file):
    assert load_spec(sweep_file, {"search.max_hours": None, "search.max_epochs": None}).search.max_hours == 0
    with pytest.raises(Exception, match="--set search.max_epochs: found -1; accepted: at least 0"):
        load_spec(sweep_file, {"search.max_epochs": -1})
