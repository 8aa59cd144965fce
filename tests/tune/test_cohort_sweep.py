"""Sweeps whose trials train together, and what the search does with their reports."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from studies import close_studies, opened  # noqa: F401 - every test uses the fixture
from test_search_stage import CARD

import kdsweep
from kdsweep.config.load import load_spec
from kdsweep.search.trial import State
from kdsweep.storage.paths import SweepDir
from kdsweep.terminal.progress import Silent
from kdsweep.training.trainer import DivergedError
from kdsweep.tune.agenda import Background
from kdsweep.tune.cohorts import CohortRun, most_useful
from kdsweep.tune.driver import resume
from kdsweep.tune.search import Search
from kdsweep.tune.work import TrialRun
from kdsweep.worker.capacity import Pace, Probe
from kdsweep.worker.place import WorkerPlace

SHAPES = {
    "method": ["kd", "none", "rkd"],
    "width": {"choice": [0.25, 0.5]},
    "alpha": 0.5,
    "temperature": 4,
    "rkd": {"weight": 25},
}


class Lines(Silent):
    """Keeps what is told."""

    def __init__(self):
        self.told = []

    def phase(self, name, text):
        self.told.append(text)


def stage(sweep_file, tmp_path, cohort=4, paces=(), progress=None, **overrides):
    """The search of a sweep, which has begun, without Ray."""
    settings = {
        "space": {**SHAPES, "method": ["kd", "none"], "lr": {"loguniform": [1e-3, 1e-2]}}, "search.points": [],
        "search.sampler": "random", "search.trials": 40, "train.epochs": 4, "train.cohort": cohort,
        "scheduler": {"name": "none"}, **overrides,
    }  # fmt: skip
    spec = load_spec(sweep_file, settings)
    place = Background(lambda: WorkerPlace(SweepDir(tmp_path), tmp_path, Path.cwd()))
    place.result()
    probe = Probe("float32", {}, paces=paces)
    search = Search(
        spec, place, lambda: opened(spec), lambda: CARD, lambda: probe, lambda: 1, progress or Silent(), lambda: 1.0
    )
    search.begin()
    return search


def rows(keys, epoch, value=0.5):
    measured = {"epoch": epoch, "val_accuracy": value, "train_loss": 1.0, "val_loss": 1.0, "lr": 0.1, "seconds": 0.5}
    return [{**measured, "trial": key} for key in keys]


def keys_of(work):
    return work.keys if isinstance(work, CohortRun) else [work.name]


def train(search, work, epoch, **more):
    """Let all trials of a piece of work report an epoch; return whether it continues."""
    reported = rows(keys_of(work), epoch)
    if isinstance(work, TrialRun):
        reported[0].pop("trial")
        more = {}
    return search.on_report(work, {"epochs": reported, **more})


# Groups


def test_a_cohort_has_trials_of_one_shape_and_all_trials_get_their_turn(sweep_file, tmp_path):
    search = stage(sweep_file, tmp_path)
    seen = Counter()
    while (work := search.next()) is not None:
        keys = keys_of(work)
        assert len(keys) <= 4
        configs = [search._study.running[key].config for key in keys]
        assert len({(config["method"], config["width"]) for config in configs}) == 1
        seen[len(keys)] += 1
        for epoch in range(1, 5):
            train(search, work, epoch, **({"ended": [True]} if epoch == 4 else {}))
    assert search.done
    assert search._study.counts[State.COMPLETE] == 40
    assert sum(number for size, number in seen.items() if size > 1) > 5


def test_methods_that_do_not_stack_train_alone_and_so_does_everything_without_cohorts(sweep_file, tmp_path):
    alone = stage(sweep_file, tmp_path / "a", **{"space.method": ["rkd"], "storage": str(tmp_path / "alone")})
    single = stage(sweep_file, tmp_path / "b", cohort=1, storage=str(tmp_path / "single"))
    assert {type(single.next()) for _ in range(12)} == {TrialRun}
    for work in (alone.next() for _ in range(8)):
        methods = {alone._study.running[key].config["method"] for key in keys_of(work)}
        assert methods == ({"none"} if isinstance(work, CohortRun) else {"rkd"})  # of the plain ones there are several


def test_trials_that_go_on_after_a_rung_form_new_cohorts_of_one_epoch(sweep_file, tmp_path):
    search = stage(sweep_file, tmp_path, **{"space.width": 0.5, "space.method": ["kd"], "search.trials": 4})
    first = search.next()
    assert not search.on_report(first, {"epochs": rows(first.keys, 1), "ended": [True]})
    second = search.next()
    assert sorted(second.keys) == sorted(first.keys)
    assert [len(search._study.running[key].values) for key in second.keys] == [1] * 4


PACES = [Pace("", 0.25, {"1": 8.0, "4": 3.0, "16": 2.0}), Pace("", 0.5, {"1": 8.0, "4": 8.0})]


def test_auto_groups_each_width_as_it_trains_fastest(sweep_file, tmp_path):
    search = stage(sweep_file, tmp_path, cohort="auto", paces=PACES, **{"space.method": ["kd"]})
    sizes: dict[float, set[int]] = {0.25: set(), 0.5: set()}
    while (work := search.next()) is not None:
        keys = keys_of(work)
        sizes[search._study.running[keys[0]].config["width"]].add(len(keys))
        for epoch in range(1, 5):
            train(search, work, epoch, **({"ended": [True]} if epoch == 4 else {}))
    assert max(sizes[0.25]) == 16
    assert sizes[0.5] == {1}


@pytest.mark.parametrize(
    ("cohort", "sampler", "trials", "told"),
    [
        (1, "random", 40, "1 at a time"),
        (4, "random", 40, "1 cohort of up to 4 at a time"),
        ("auto", "random", 40, "1 cohort of up to 16 at a time"),
        ("auto", "tpe", 40, "1 cohort of up to 10 at a time (cohorts of 16 are faster, but need more trials)"),
        ("auto", "tpe", 7, "1 at a time (cohorts of 16 are faster, but need more trials)"),
    ],
)
def test_the_search_says_how_large_its_cohorts_are(cohort, sampler, trials, told, sweep_file, tmp_path):
    lines = Lines()
    settings = {"space.method": ["kd"], "search.sampler": sampler, "search.trials": trials}
    stage(sweep_file, tmp_path, cohort, PACES, lines, **settings)
    assert lines.told[0] == f"{trials} trials of 4 epochs, {told}"


def test_what_keeps_steps_from_being_captured_is_named(sweep_file, tmp_path):
    space = {"method": ["kd", "crd"], "width": 0.25, "optimizer": ["adam", "lamb"], "lr": {"loguniform": [1e-3, 1e-2]}}
    space |= {"alpha": 0.5, "temperature": 4}
    settings = {"space": space, "search.trials": 5, "train.capture": True}
    lines = Lines()
    stage(sweep_file, tmp_path, 1, progress=lines, **settings)
    assert lines.told[1] == "train.capture: steps are not captured with crd, lamb"


@pytest.mark.parametrize(
    ("sampler", "trials", "lanes", "most"),
    [("random", 40, 2, 20), ("random", 3, 2, 2), ("grid", 9, 1, 9), ("tpe", 40, 2, 5), ("tpe", 6, 2, 1)],
)
def test_auto_leaves_work_for_every_lane_and_results_for_a_sampler_that_learns(
    sampler, trials, lanes, most, sweep_file
):
    space = {**SHAPES, "lr": {"choice": [1e-3, 2e-3]}}
    spec = load_spec(
        sweep_file, {"space": space, "search.points": [], "search.sampler": sampler, "search.trials": trials}
    )
    assert most_useful(spec, lanes) == most


def test_a_lane_gets_memory_for_its_largest_cohort(sweep_file):
    space, found = {"space": SHAPES, "search.points": []}, Probe("float32", {}, paces=PACES)
    for cohort, expected in ((1, 1), (6, 6), ("auto", 16)):
        assert found.cohort_of(load_spec(sweep_file, {**space, "train.cohort": cohort}).train.cohort) == expected
    small = Probe("float32", {}, int(1e9), int(8e9), "T4", PACES)
    assert small.cohort_of("auto") == 6  # more do not fit


# Failures


def test_a_trial_that_diverges_fails_alone(sweep_file, tmp_path):
    search = stage(sweep_file, tmp_path)
    work = search.next()
    lost, *others = work.keys
    error = DivergedError("the training loss became nan in epoch 1")
    assert search.on_report(work, {"failures": [(lost, error)], "epochs": rows(others, 1)})
    assert search._study.counts[State.FAILED] == 1
    assert search._study.last_error == str(error)
    assert set(others) <= set(search._study.running)
    assert not search.on_report(work, {"epochs": rows(others, 2), "ended": [True]})


@pytest.mark.parametrize("how", ["failed", "lost"])
def test_trials_of_a_failed_cohort_go_on_alone_with_what_they_have(how, sweep_file, tmp_path):
    search = stage(sweep_file, tmp_path)
    work = search.next()
    assert search.on_report(work, {"epochs": rows(work.keys, 1)})
    if how == "failed":
        assert not search.on_report(work, {"failure": "RuntimeError: odd shapes (x.py:1)"})
    else:
        search.on_lost(work)
    alone = [search.next() for _ in work.keys]
    assert [type(one) for one in alone] == [TrialRun] * len(work.keys)
    assert sorted(one.name for one in alone) == sorted(work.keys)
    assert search._study.counts[State.FAILED] == 0


def test_models_that_cannot_be_stacked_are_grouped_once_and_never_again(sweep_file, tmp_path):
    search = stage(sweep_file, tmp_path, **{"space.width": 0.5, "space.method": ["kd"]})
    work = search.next()
    assert not search.on_report(work, {"apart": ["model 'x': no rule for its layers"]})
    assert {type(search.next()) for _ in range(12)} == {TrialRun}


def test_a_spent_budget_leaves_no_trial_waiting_for_others(sweep_file, tmp_path):
    search = stage(sweep_file, tmp_path, **{"search.max_epochs": 4})
    work = search.next()
    assert search.on_report(work, {"epochs": rows(work.keys, 1)})
    search.on_report(work, {"epochs": rows(work.keys, 2), "ended": [True]})
    assert search._study.budget.spent
    while (further := search.next()) is not None:  # the best plain trials are trained to the end
        reached = len(search._study.running[keys_of(further)[0]].values)
        if train(search, further, reached + 1, ended=[True]):
            search.give_back(further)
    assert search.done


# Whole sweeps


@pytest.mark.slow
def test_trials_of_a_cohort_have_the_curves_that_they_have_alone_also_after_an_interruption(
    local_ray, sweep_file, tmp_path
):
    space = {**SHAPES, "lr": {"choice": [1e-3, 3e-3, 1e3]}}
    shared = {
        "space": space, "search.points": [], "search.sampler": "grid", "search.trials": 18, "confirm.top": 0,
        "scheduler": {"name": "none"}, "train.precision": "float32", "train.optimizer": "sgd", "dataset.subset": 400,
        "resources.max_concurrent": 1,
    }  # fmt: skip
    alone = kdsweep.run(load_spec(sweep_file, {**shared, "storage": str(tmp_path / "alone")}))
    settings = {**shared, "storage": str(tmp_path / "together"), "train.cohort": 3, "search.max_epochs": 20}
    paused = kdsweep.run(load_spec(sweep_file, settings))
    assert len(paused.epochs) < len(alone.epochs)
    together = resume(paused.path, overrides={"search.max_epochs": 10_000, "train.cohort": "auto"})

    order = ["method", "width", "lr"]
    for frame in (alone.trials, together.trials):
        assert len(frame) == 18
    ours, theirs = (frame.trials.sort_values(order).reset_index(drop=True) for frame in (together, alone))
    assert list(ours["state"]) == list(theirs["state"])
    assert set(ours[ours["lr"] == 1e3]["state"]) == {"FAILED"}
    assert all("the training loss became" in error for error in ours[ours["lr"] == 1e3]["error"])
    for ours_key, theirs_key in zip(ours["trial"], theirs["trial"], strict=True):
        rows_of = [results.epochs[results.epochs["trial"] == key]
                   for results, key in ((together, ours_key), (alone, theirs_key))]  # fmt: skip
        for column in ("train_loss", "val_loss"):
            np.testing.assert_allclose(rows_of[0][column], rows_of[1][column], rtol=1e-3)
    rkd = together.trials.loc[together.trials["method"] == "rkd", "trial"]
    sizes = together.epochs.merge(together.trials[["trial", "method"]], on="trial").groupby("method")["cohort"]
    assert sizes.max()["kd"] > 1
    assert sizes.max()["none"] > 1
    assert set(together.epochs.loc[together.epochs["trial"].isin(rkd), "cohort"]) == {1}
    assert "cohort" not in alone.epochs.columns
