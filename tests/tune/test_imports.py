"""No process of a sweep imports PyTorch's compiler before the costs are measured, and the driver no PyTorch at all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

COMPILER = ["torch._dynamo", "torch._inductor", "sympy"]

SCRIPT = """
import json, sys
from pathlib import Path

import kdsweep
from kdsweep.tune import lanes
from kdsweep.tune.trainable import Lane

sweep_file, notes = sys.argv[1], Path(sys.argv[2])


class NotingLane(Lane):
    def step(self):
        report = super().step()
        kind = type(self._work).__name__
        (notes / f"{kind}.json").write_text(json.dumps([name for name in %r if name in sys.modules]))
        return report


lanes.Lane = NotingLane
results = kdsweep.run(kdsweep.load_spec(sweep_file))
assert len(results.confirmed) == 1
print(json.dumps([name for name in ["torch", *%r] if name in sys.modules]))
"""


@pytest.mark.slow
def test_driver_and_workers_of_a_whole_sweep_import_no_more_than_they_need(sweep_file, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    text = sweep_file.read_text().replace("trials: 10, startup_trials: 5", "trials: 2, startup_trials: 1")
    sweep_file.write_text(text.replace("epochs: 4", "epochs: 2").replace("subset: 1200", "subset: 400"))
    command = [sys.executable, "-c", SCRIPT % (["torch", *COMPILER], COMPILER), str(sweep_file), str(notes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    loaded = {path.stem: json.loads(path.read_text()) for path in notes.iterdir()}
    assert {"Prepare", "TrialRun", "ConfirmRun", "ScoreTeacher", "Predict"} <= loaded.keys()
    loaded.pop("MeasureCosts")  # the last stage: PyTorch's dispatch modes, which count operations, import its compiler
    assert all(modules == ["torch"] for modules in loaded.values())
