"""A sweep on a Ray cluster of several nodes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
from ray.cluster_utils import Cluster
import kdsweep
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=2)
cluster.wait_for_nodes()
results = kdsweep.run(kdsweep.load_spec(sys.argv[1]), address=cluster.address)
states = {state: int(count) for state, count in results.trials["state"].value_counts().items()}
print(json.dumps({"states": states, "confirmed": len(results.confirmed)}))
cluster.shutdown()
"""


@pytest.mark.cluster
def test_a_sweep_runs_unchanged_on_several_nodes(sweep_file):
    """Runs in its own process, because the other tests share a local Ray."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(sweep_file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.strip().splitlines()[-1])
    assert sum(outcome["states"].values()) == 10
    assert "FAILED" not in outcome["states"]
    assert outcome["confirmed"] == 1


SLOW = """
import os, time
from pathlib import Path
from kdsweep.methods import Method

class Slow(Method):
    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})

    def term(self, student, teacher, labels):
        Path(__file__).with_suffix(".pid").write_text(str(os.getpid()))
        time.sleep(0.1)
        return student.logits.sum() * 0
"""
LOSE_A_NODE = """
import json, sys, threading, time
from pathlib import Path
import psutil
from ray.cluster_utils import Cluster
import kdsweep
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
spec = kdsweep.load_spec(sys.argv[1], json.loads(sys.argv[2]))

def lose_the_node_of_the_last_trial():
    log = spec.sweep_dir.epochs_log
    while True:
        epochs = [json.loads(line)["epoch"] for line in log.read_bytes().splitlines()] if log.is_file() else []
        if spec.train.epochs in epochs and len(epochs) > spec.train.epochs:
            break
        time.sleep(0.1)
    raylet = psutil.Process(int(Path("slow_method.pid").read_text())).ppid()
    (node,) = [n for n in nodes if any(p.process.pid == raylet for p in n.all_processes["raylet"])]
    cluster.remove_node(node)

threading.Thread(target=lose_the_node_of_the_last_trial, daemon=True).start()
results = kdsweep.run(spec, address=cluster.address)
print(results.trials.set_index("method")["epochs"].to_json())
cluster.shutdown()
"""


@pytest.mark.cluster
def test_the_last_trial_goes_on_where_another_lane_waits_if_its_node_is_lost(sweep_file):
    (sweep_file.parent / "slow_method.py").write_text(SLOW)
    settings = {
        "space": {"method": ["none", "slow_method:Slow"], "alpha": 0.5, "lr": 1e-3, "slow_method:Slow": {"weight": 1}},
        "search.points": [], "search.sampler": "grid", "search.trials": 2, "scheduler": {"name": "none"},
        "train.epochs": 30, "dataset.subset": 400, "confirm.top": 0, "resources.gpus_per_trial": 0,
    }  # fmt: skip
    words = [sys.executable, "-c", LOSE_A_NODE, str(sweep_file), json.dumps(settings)]
    done = subprocess.run(words, cwd=sweep_file.parent, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1]) == {"none": 30, "slow_method:Slow": 30}
