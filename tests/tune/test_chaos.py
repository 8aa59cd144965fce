"""A sweep survives real kills of drivers, workers and nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.chaos
def test_five_killed_drivers_ten_killed_workers_and_a_lost_node_cost_no_trial(tmp_path):
    out = tmp_path / "outcome.json"
    faults = ["--driver-kills", "5", "--worker-kills", "10", "--node-removals", "1"]
    done = subprocess.run(
        [sys.executable, str(CHAOS), "--rounds", "1", "--trials", "54", *faults, "--json", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (outcome,) = json.loads(out.read_text())
    assert outcome["finished"] == outcome["asked"]
    assert outcome["faults"]["driver"] == 5
    assert outcome["faults"]["worker"] >= 5
    assert outcome["faults"]["node"] == 1
    assert (outcome["lost"], outcome["duplicated"], outcome["failed"], outcome["differing"]) == (0, 0, 0, 0)
    assert outcome["confirmed_differing"] == 0
    assert outcome["exported_correctly"]


@pytest.mark.chaos
def test_a_round_on_a_faulty_object_store_costs_no_trial(tmp_path):
    pytest.importorskip("moto")
    out = tmp_path / "outcome.json"
    command = [sys.executable, str(CHAOS), "--rounds", "1", "--trials", "6", "--storage", "s3://sweeps/chaos"]
    done = subprocess.run([*command, "--json", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (outcome,) = json.loads(out.read_text())
    assert outcome["faults"]["store"] == 1
    assert (outcome["lost"], outcome["duplicated"], outcome["failed"], outcome["differing"]) == (0, 0, 0, 0)
    assert outcome["exported_correctly"]
