"""What the confirmation does with reports of its runs. Nothing here starts Ray."""

from __future__ import annotations

from pathlib import Path

from kdsweep.config.load import load_spec
from kdsweep.storage.paths import SweepDir
from kdsweep.terminal.progress import Silent
from kdsweep.tune.agenda import Background
from kdsweep.tune.confirm import Confirmation
from kdsweep.tune.work import ConfirmRun
from kdsweep.worker.place import WorkerPlace


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
