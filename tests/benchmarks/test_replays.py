"""benchmarks/search.py: the interpolated curves, the simulated workers, the measures and two real searches."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = 90


@pytest.fixture(scope="module")
def replays():
    """The modules of the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        names = ("curves", "measures", "random_search", "strategies", "workers")
        modules = {name: importlib.import_module(f"replay.{name}") for name in names}
        yield SimpleNamespace(search=importlib.import_module("search"), **modules)


@pytest.fixture(scope="module")
def table(replays):
    recorded = pd.read_parquet(replays.curves.DATA / "mnist_mini.parquet")
    return recorded[recorded["number"] < CONFIGURATIONS]


@pytest.fixture(scope="module")
def surrogate(replays, table):
    return replays.curves.Surrogate(table, replays.curves.KERNELS["mnist_mini"])


def test_a_recorded_configuration_has_its_recorded_curve_and_a_true_accuracy_within_the_noise(surrogate):
    for config, recorded in zip(surrogate.configs, surrogate.recorded, strict=True):
        curve = surrogate.of(config)
        assert curve.values == pytest.approx(recorded, abs=0.0003)
        assert curve.true == pytest.approx(recorded.max(), abs=0.01)
        assert surrogate.of(config).values.tolist() == curve.values.tolist()


def test_a_configuration_between_recorded_ones_is_near_them_and_has_noise(surrogate):
    config = next(config for config in surrogate.configs if config["method"] == "kd")
    near = config | {"lr": config["lr"] * 1.01}
    assert surrogate.of(near).true == pytest.approx(surrogate.of(config).true, abs=0.003)
    smoothness = [np.diff(surrogate.of(near | {"alpha": alpha}).values, 2) for alpha in (0.4, 0.5, 0.6)]
    assert all(np.abs(jumps).max() > 0.001 for jumps in smoothness)


def test_leave_one_out_errors_are_those_of_a_fit_without_the_configuration(replays, table, surrogate):
    kernel = replays.curves.KERNELS["mnist_mini"]
    errors = surrogate.errors()
    for index, number in [(0, 0), (40, 40)]:
        without = replays.curves.Surrogate(table[table["number"] != number], kernel)
        config = surrogate.configs[index]
        predicted = without._smooth(without._place(config), config["method"], config["width"])
        assert predicted - surrogate.recorded[index] == pytest.approx(errors[index], abs=1e-9)


def test_listed_configurations_are_used_once_each(replays, surrogate):
    listed = replays.curves.Listed(surrogate)
    cell = [c for c in surrogate.configs if (c["method"], c["width"]) == ("none", 1.0)]
    curves = [listed.of({"method": "none", "width": 1.0, "lr": 0.003}).values.tolist() for _ in cell]
    assert sorted(curves) == sorted(surrogate.of(config).values.tolist() for config in cell)


@pytest.mark.parametrize("name", ["kdsweep", "random, 1 epoch then top 3"])
def test_a_replay_depends_on_its_seed_alone(replays, surrogate, name):
    first, again, other = (replays.search.replayed(surrogate, name, 4, seed, 10, surrogate) for seed in (1, 1, 2))
    for outcome in (first, again, other):
        del outcome["seconds"]
    assert first == again != other
    assert first["epochs"] == CONFIGURATIONS * 18 // 10
    assert all(regret >= -0.3 for regret in first["regret"]["10"].values())


def test_a_paused_trial_of_kdsweep_continues_at_its_next_epoch(replays, surrogate):
    setting = replays.strategies.Setting(surrogate.space, 0, 18, [150])
    strategy = replays.strategies.STRATEGIES["kdsweep, random"](setting)
    epochs = list(replays.workers.replay(strategy, surrogate, workers=4, budget=150))
    strategy.close()
    numbers, waits = {}, []
    for epoch in epochs:
        numbers.setdefault(epoch.key, []).append(epoch)
    for trained in numbers.values():
        assert [epoch.number for epoch in trained] == list(range(1, len(trained) + 1))
        duration = surrogate.of(trained[0].config).seconds / 3600
        waits += [after.hours - before.hours > 1.01 * duration for before, after in pairwise(trained)]
    assert sum(waits) > 5
    assert len(numbers) > 40


class Fixed:
    """Trains three trials of different speed for two epochs each."""

    def __init__(self, job):
        self.waiting = [job(name, {"method": name, "width": 1.0}) for name in ("slow", "fast", "none")]

    def ask(self):
        return self.waiting.pop(0) if self.waiting else None

    def report(self, job, value, seconds):
        return job.epochs < 2

    def close(self):
        pass


class Known:
    """Curves of two epochs."""

    def of(self, config):
        seconds, true, seen = {
            "slow": (3.0, 0.9, [0.5, 0.6]), "fast": (1.0, 0.8, [0.4, 0.7]), "none": (1.0, 0.7, [0.1, 0.2])
        }[config["method"]]  # fmt: skip
        return SimpleNamespace(true=true, values=np.array(seen), seconds=seconds)

    def best(self, width, plain):
        return 0.75 if plain else 0.95


def test_a_free_worker_gets_the_next_trial_and_epochs_end_in_order_of_time(replays):
    epochs = list(replays.workers.replay(Fixed(replays.workers.Job), Known(), workers=2, budget=99))
    assert [(epoch.key, epoch.number, round(epoch.hours * 3600)) for epoch in epochs] == [
        ("fast", 1, 1), ("fast", 2, 2), ("slow", 1, 3), ("none", 1, 3), ("none", 2, 4), ("slow", 2, 6),
    ]  # fmt: skip


def test_regret_is_that_of_the_trial_that_looks_best_so_far(replays):
    epochs = replays.workers.replay(Fixed(replays.workers.Job), Known(), workers=2, budget=99)
    checkpoints = {"one": 1, "three": 3, "all": 6}
    found = replays.measures.measured(epochs, Known(), [1.0], 2, checkpoints)
    # The slow trial is worth more, but never looks better than the fast one does by then.
    assert {name: regret["1.0"] for name, regret in found["regret"].items()} == {
        "one": 15.0,
        "three": 15.0,
        "all": 15.0,
    }
    assert {name: regret["1.0"] for name, regret in found["plain_regret"].items()} == {
        "one": 75.0, "three": 75.0, "all": 5.0,
    }  # fmt: skip
    assert (found["trials"], found["plain_trials"], found["complete"], found["near"]) == (3, 1, 3, {"1.0": None})


def test_early_discarding_trains_the_best_of_each_width_to_the_end_within_its_budget(replays, surrogate):
    search = replays.random_search.EarlyDiscarding(surrogate.space, 0, 18, 1, 2, 3, [200, 400])
    epochs = list(replays.workers.replay(search, surrogate, workers=4, budget=400))
    for budget, drawn in [(200, 98), (400, 196)]:
        first = {epoch.key: epoch for epoch in epochs[:budget] if epoch.number == 1 and int(epoch.key) <= drawn}
        complete = {epoch.key for epoch in epochs[:budget] if epoch.number == 18}
        assert len(first) == drawn
        for width in (0.25, 0.5, 1.0):
            here = [key for key in first if first[key].config["width"] == width]
            assert set(sorted(here, key=lambda key: -first[key].value)[:2]) <= complete
