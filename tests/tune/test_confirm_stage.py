"""What the confirmation does with reports of its runs. Nothing here starts Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdsweep.config.load import load_spec
from kdsweep.errors import ModelError
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks.image.splits import prepare
from kdsweep.terminal.progress import Silent
from kdsweep.training.trainer import DivergedError
from kdsweep.tune import work
from kdsweep.tune.agenda import Background
from kdsweep.tune.confirm import Confirmation
from kdsweep.tune.work import ConfirmRun
from kdsweep.worker.guarded import GuardedRun
from kdsweep.worker.place import WorkerPlace
from kdsweep.worker.workbench import Workbench, provide_teacher


class Told(Silent):
    """Keeps what the phases say."""

    def __init__(self):
        self.lines: list[str] = []

    def phase(self, name, text):
        self.lines.append(text)


def test_only_a_run_that_exhausted_its_gpu_is_said_to_have(sweep_file, tmp_path, monkeypatch):
    """The driver of a sweep in an object store has no file of a run that another node has just finished."""
    place = WorkerPlace(SweepDir(tmp_path), tmp_path, Path.cwd())
    told = Told()
    stage = Confirmation(load_spec(sweep_file), Background(lambda: place), lambda: True, told, lambda: 1.0)
    monkeypatch.setattr(stage, "_want_more", lambda: None)
    monkeypatch.setattr(stage, "_tell", lambda: None)
    fine, large = (ConfirmRun(place, {"method": "kd", "width": 1.0}, seed) for seed in (1, 2))
    assert not stage.on_report(fine, {"confirmed": [{"test_accuracy": 0.5}]})
    assert told.lines == []
    assert not stage.on_report(large, {"exhausted": [True], "confirmed": [{"test_accuracy": float("nan")}]})
    assert len(told.lines) == 1
    assert f"{large.name} is out of GPU memory even alone" in told.lines[0]


@pytest.mark.parametrize(("error", "kept"), [(DivergedError("the loss became nan"), True), (ModelError("no"), False)])
def test_only_a_run_that_diverged_is_kept_as_not_measured(error, kept, sweep_file, tmp_path, monkeypatch):
    spec = load_spec(sweep_file)
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    provide_teacher(spec, spec.sweep_dir, data, torch.device("cpu"), lambda metrics: None)
    bench = Workbench.of(spec, spec.sweep_dir, data, torch.device("cpu"))
    place = WorkerPlace(spec.sweep_dir, tmp_path, Path.cwd())
    monkeypatch.setattr(work, "warm_workbench", lambda place, alone: bench)
    monkeypatch.setattr(WorkerPlace, "fetch", lambda self: None)

    def epoch(self):
        raise error

    monkeypatch.setattr(GuardedRun, "epoch", epoch)
    run = ConfirmRun(place, {"method": "none", "width": 0.5, "lr": 1e-3}, 1)
    result = place.sweep.confirmation(run.name).result
    if kept:
        assert [report.kind for report in run.steps()] == ["confirmed"]
    else:
        with pytest.raises(ModelError):
            list(run.steps())
    assert result.is_file() is kept
