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
