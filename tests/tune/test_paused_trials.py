"""A sweep on Ray whose trials pause at rungs, also when it is interrupted and resumed."""

from __future__ import annotations

import os
import signal

import pytest

import kdsweep
from kdsweep.errors import Interrupted
from kdsweep.terminal.progress import Silent
from kdsweep.tune.driver import resume

PROMOTION = {
    "confirm.top": 0,
    "search": {"trials": 6, "startup_trials": 4},
    "train.epochs": 4,
    "dataset.subset": 400,
    "scheduler": {"name": "asha-promotion", "grace_epochs": 1},
    "space.method": ["kd", "none"],
}


class InterruptsWhile(Silent):
    """Sends SIGTERM as soon as so many trials wait for their promotion."""

    def __init__(self, waiting):
        self.waiting = waiting
        self.seen = []

    def search(self, status):
        self.seen.append(status)
        if status.waiting == self.waiting:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_paused_trials_go_on_where_they_were_also_after_an_interruption(local_ray, sweep_file):
    spec = kdsweep.load_spec(sweep_file, PROMOTION)
    progress = InterruptsWhile(waiting=3)
    with pytest.raises(Interrupted):
        kdsweep.run(spec, progress=progress)
    assert max(status.waiting for status in progress.seen) >= 3
    before = kdsweep.load_results(spec.sweep_dir.root)
    paused = before.trials[(before.trials["state"] == "RUNNING") & (before.trials["epochs"] == 1)]
    assert len(paused) >= 3
    assert all(spec.sweep_dir.trial(key).state.is_file() for key in paused["trial"])

    results = resume(spec.sweep_dir.root)
    assert set(results.trials["state"]) == {"COMPLETE", "PRUNED"}
    assert len(results.trials) == 6
    for trial, rows in results.epochs.groupby("trial"):
        assert list(rows["epoch"]) == list(range(1, len(rows) + 1)), trial
    # Epochs from before the interruption were not trained again.
    kept = before.epochs.set_index(["trial", "epoch"])["train_loss"]
    assert results.epochs.set_index(["trial", "epoch"])["train_loss"].loc[kept.index].equals(kept)
    for _, group in results.trials.groupby(["width", results.trials["method"] == "none"]):
        assert (group["state"] == "COMPLETE").any()
    assert set(results.trials.loc[results.trials["state"] == "PRUNED", "epochs"]) <= {1, 3}
    assert not list(spec.sweep_dir.trials.glob("*/state.safetensors"))
