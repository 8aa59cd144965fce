"""A real sweep on Ray, interrupted, resumed, confirmed and exported, as all trackers have it."""

from __future__ import annotations

import os
import signal

import pytest
import read_back

import kdsweep
from kdsweep import cli
from kdsweep.errors import Interrupted
from kdsweep.storage.paths import SweepDir
from kdsweep.terminal.progress import Silent
from kdsweep.tune.driver import confirm, resume

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Interrupts(Silent):
    """Sends SIGTERM as soon as so many trials have ended."""

    def __init__(self, ended):
        self.ended = ended
        self.lines = []

    def phase(self, name, text):
        if name == "tracking":
            self.lines.append(text)

    def search(self, status):
        if status.ended == self.ended:
            os.kill(os.getpid(), signal.SIGTERM)


def agree(sweep):
    for read in (read_back.mlflow, read_back.tensorboard, read_back.wandb):
        read_back.agrees(read(sweep), sweep.root)


def test_all_trackers_have_what_the_frames_have(local_ray, sweep_file, tmp_path, monkeypatch, capsys):
    for package in ("mlflow", "tensorboard", "wandb"):
        pytest.importorskip(package)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("kdsweep.tracking.session.INTERRUPTED_SECONDS", 60.0)  # importing them takes long enough
    tracking = {"tensorboard": True, "mlflow": f"sqlite:///{tmp_path}/mlflow.db", "wandb": {"project": "tests"}}
    changes = {"tracking": tracking, "confirm.top": 0, "dataset.subset": 400, "search.trials": 8}
    spec = kdsweep.load_spec(sweep_file, changes)
    sweep = SweepDir(spec.sweep_dir.root)
    progress = Interrupts(ended=3)
    with pytest.raises(Interrupted):
        kdsweep.run(spec, progress=progress)
    assert progress.lines == [", ".join(spec.tracking.described(sweep))]
    agree(sweep)

    progress = Interrupts(ended=-1)
    results = resume(sweep.root, trials=9, progress=progress)
    assert len(results.trials) == 9
    agree(sweep)

    confirmed = confirm(sweep.root, top=1, seeds=2, progress=progress).confirmed
    assert progress.lines == [", ".join(spec.tracking.described(sweep))] * 2
    agree(sweep)
    for row in confirmed.to_dict("records"):
        for read in (read_back.mlflow, read_back.tensorboard, read_back.wandb):
            run = read(sweep)[row["trial"]]
            assert run.last["confirmed/test_accuracy"] == pytest.approx(row["test_accuracy"])
            assert run.texts.get("confirmed/verdict", "") == row["verdict"]
            assert ("confirmed/kd_gain" in run.last) == bool(row["verdict"])

    monkeypatch.setattr(
        "sys.argv", ["kdsweep", "export", str(sweep.root), "--out", str(tmp_path / "out"), "--top", "1"]
    )
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    (folder,) = (tmp_path / "out").iterdir()
    key = folder.name.removeprefix("small-")
    told = capsys.readouterr().err.splitlines()
    assert sorted(told) == [f"{name}: attached to the runs of {key}" for name in ("mlflow", "tensorboard", "wandb")]
    files = {path.name for path in folder.iterdir()}
    assert set(read_back.mlflow(sweep)[key].files) == set(read_back.wandb(sweep)[key].files) == files
