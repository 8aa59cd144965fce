"""A whole sweep on a Ray with one null GPU: faults of single trials do not fail them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from trainings import SMALL, opened

import kdsweep
from kdsweep.config.spec import SweepSpec

pytestmark = pytest.mark.null_gpu

# Imported by the workers, too. Losses are garbage, so the check for finite numbers is replaced.
METHODS = """\
import os
from pathlib import Path

import null_cuda
import torch
import trainings
from kdsweep.methods import Method

trainings.ignore_values()


class Simple(Method):
    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})

    def term(self, student, teacher, labels):
        self.act()
        return student.logits.sum()

    def act(self):
        pass


class PoisonsTwice(Simple):
    '''Accesses memory that is not there: once in the probe, and once in the trial.'''

    def act(self):
        been = Path(__file__).with_suffix(".been")
        processes = been.read_text().split() if been.exists() else []
        if len(processes) < 2:
            been.write_text(" ".join([*processes, str(os.getpid())]))
            null_cuda.poison()


class Greedy(Simple):
    '''Needs 60 % of the GPU.'''

    def act(self):
        torch.empty(int(0.6 * 8 * 2**30), dtype=torch.uint8, device="cuda")


class TooGreedy(Simple):
    '''Needs more than there is.'''

    def act(self):
        torch.empty(9 * 2**30, dtype=torch.uint8, device="cuda")
"""


def swept(root: str) -> dict[str, Any]:
    folder = Path(root)
    methods = ["kd", "faults:PoisonsTwice", "faults:Greedy", "faults:TooGreedy", "hint", "at"]
    sections = {
        **SMALL,
        "space": {"method": methods, "width": 0.25, "alpha": 0.5, "temperature": 4},
        "train": {"epochs": 3, "batch_size": 8, "precision": "float32"},
        "search": {"sampler": "random", "trials": len(methods), "points": [{"method": name} for name in methods]},
        "scheduler": {"name": "none"},
        "confirm": {"top": 0},
        "resources": {"gpus_per_trial": 0.5, "max_failures": 0},
    }
    (folder / "faults.py").write_text(METHODS)
    opened(folder, {**sections, "name": "teacher"})  # judged on the CPU and stored for the sweep
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    results = kdsweep.run(SweepSpec.model_validate({**sections, "storage": root}))
    trials = results.trials.set_index("method")
    return {
        "states": trials["state"].to_dict(),
        "error": trials["error"]["faults:TooGreedy"],
        "epochs": results.epochs.groupby("trial").size().tolist(),
    }


def test_a_trial_survives_a_broken_gpu_and_repeats_alone_if_memory_ran_out(on_null_gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = str(Path(__file__).parent)
    found = on_null_gpu(swept, str(tmp_path), gb=8, PATHS=f"{tmp_path}:{here}", HOME=str(tmp_path))
    states = found["states"]
    assert states.pop("faults:TooGreedy") == "FAILED"
    assert found["error"].startswith("out of GPU memory: ")
    assert set(states.values()) == {"COMPLETE"}
    assert len(states) == 5
    assert len(set((tmp_path / "faults.been").read_text().split())) == 2
