"""A small sweep with two objectives on a real Ray."""

from __future__ import annotations

import optuna
import pandas as pd
import pytest
from optuna.storages.journal import JournalFileBackend

import kdsweep
from kdsweep.results.frames import load_results
from kdsweep.storage.paths import SweepDir


@pytest.mark.slow
def test_a_sweep_searches_a_front_of_accuracy_and_latency(local_ray, sweep_file):
    spec = kdsweep.load_spec(sweep_file, {
        "objective": ["val_accuracy", "latency_ms"], "search.trials": 6, "train.epochs": 2, "confirm.top": 2,
        "confirm.seeds": 1, "resources.max_concurrent": 2,
    })  # fmt: skip
    results = kdsweep.run(spec)
    trials, sweep = results.trials, SweepDir(results.path)
    assert (len(trials), set(trials["state"]) <= {"COMPLETE", "PRUNED"}) == (6, True)
    # One measurement for each architecture, which here is a width.
    assert trials.groupby("width")["latency_ms"].nunique().eq(1).all()
    assert len(list(sweep.latency.glob("*.json"))) == trials["width"].nunique()
    front = results.pareto()
    for row in front.itertuples():
        at_least = (trials["val_accuracy"] >= row.val_accuracy) & (trials["latency_ms"] <= row.latency_ms)
        better = (trials["val_accuracy"] > row.val_accuracy) | (trials["latency_ms"] < row.latency_ms)
        assert not (at_least & better).any()
    assert set(results.confirmed["trial"]) <= set(front["trial"])
    assert results.hypervolume({"val_accuracy": 0.0, "latency_ms": 1e3}) > 0
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(sweep.journal)))
    study = optuna.load_study(storage=storage, study_name=None)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for frozen in study.trials:
        row = trials.set_index("number").loc[frozen.number]
        assert frozen.values in (None, [row["val_accuracy"], row["latency_ms"]])
    folders = results.export(sweep.root / "students", top=len(front))
    assert len(folders) == front["config"].nunique()
    more = kdsweep.resume(sweep.root, trials=8).trials
    assert (
        pd.testing.assert_frame_equal(more.head(6)[["trial", "val_accuracy"]], trials[["trial", "val_accuracy"]])
        is None
    )
    assert load_results(sweep.root).best()["trial"][0] in set(load_results(sweep.root).pareto()["trial"])
