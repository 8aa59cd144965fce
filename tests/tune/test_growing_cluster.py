"""A cluster whose autoscaler adds nodes: Ray's own, with its provider whose nodes are processes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from test_submit import START, end_all, free_port

HEAD = "f" * 51 + "00000"  # how the provider names it
SPEC = """\
name: grows
dataset: {name: mnist_mini, subset: 400, val_fraction: 0.5}
teacher: {model: mnist_teacher, width: 0.25, checkpoint: "kdsweep:mnist_mini_teacher"}
student: {model: mnist_student}
space: {method: ["meets_own:Meets"], width: 0.25, lr: {loguniform: [1e-3, 1e-2]}}
train: {epochs: 1, batch_size: 64}
search: {trials: 4, sampler: random}
scheduler: {name: none}
confirm: {top: 0}
"""
MEETS = """\
import time
from pathlib import Path
import ray
from kdsweep.methods import Method

class Meets(Method):
    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})

    def term(self, student, teacher, labels):
        folder = Path(__file__).parent / "nodes"
        folder.mkdir(exist_ok=True)
        (folder / ray.get_runtime_context().get_node_id()).touch()
        until = time.monotonic() + 180
        while len(list(folder.iterdir())) < 2:
            assert time.monotonic() < until, "no second node"
            time.sleep(0.1)
        return student.logits.sum() * 0
"""
# Runs the sweep; then adds a type of node with a GPU, which a GPU-less cluster would have to start first.
RUN = """\
import json, sys
from pathlib import Path
import kdsweep
from kdsweep.config.spec import ResourcesSection
from kdsweep.tune.cluster import Address, connected, share
address, config = sys.argv[1], Path(sys.argv[2])
results = kdsweep.run(kdsweep.load_spec("grows.yaml"), address=address)
with connected(Address(address, address)):
    written = json.loads(config.read_text())
    written["available_node_types"]["gpu"] = {
        "resources": {"CPU": 4, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 1,
    }
    written["max_workers"] = 4
    other = config.with_suffix(".new")
    other.write_text(json.dumps(written))
    other.rename(config)
    said = []
    whole = share(ResourcesSection(), True, said.append)
    packed = share(ResourcesSection(max_concurrent=6), True, said.append, per_gpu=3)
print(json.dumps([list(results.trials["state"]), said, whole.gpus, whole.slots, packed.gpus, packed.slots]))
"""


def start(folder: Path, short: str, port: int) -> dict[str, str]:
    """Start the head of a cluster without trials, whose autoscaler may add two nodes; return its environment."""
    config = {
        "cluster_name": "grows", "max_workers": 2, "upscaling_speed": 8.0, "idle_timeout_minutes": 5,
        # By `type`, Ray would look for a file of defaults that is not in its package.
        "provider": {
            "type": "external", "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True, "head_node_id": HEAD, "gcs_address": f"127.0.0.1:{port}",
        },
        "auth": {}, "head_node_type": "ray.head.default", "file_mounts": {}, "cluster_synced_files": [],
        "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [],
        **{name: [] for name in ("initialization_commands", "setup_commands", "head_setup_commands",
                                 "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
    }  # fmt: skip
    (folder / "cluster.json").write_text(json.dumps(config))
    python = Path(sys.executable).parent
    environment = os.environ | {
        "HOME": str(folder / "home"), "RAY_TMPDIR": short, "PATH": f"{python}:{os.environ['PATH']}",
        "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }  # fmt: skip
    environment.pop("RAY_ADDRESS", None)
    named = {"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
             "RAY_NODE_TYPE_NAME": "ray.head.default"}  # fmt: skip
    options = ["--head", f"--port={port}", f"--temp-dir={short}/ray", "--include-dashboard=false", "--num-cpus=0",
               f"--ray-client-server-port={free_port()}",
               f"--autoscaling-config={folder / 'cluster.json'}"]  # fmt: skip
    done = subprocess.run([*START, *options], env=environment | named, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


@pytest.mark.cluster
def test_a_sweep_without_numbers_starts_the_nodes_it_needs_and_uses_them(tmp_path):
    (tmp_path / "meets_own.py").write_text(MEETS)
    (tmp_path / "grows.yaml").write_text(SPEC + f"storage: {tmp_path / 'runs'}\n")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="kds-", dir="/tmp", ignore_cleanup_errors=True) as short:  # for sockets
        try:
            environment = start(tmp_path, short, port)
            words = [sys.executable, "-c", RUN, f"127.0.0.1:{port}", tmp_path / "cluster.json"]
            done = subprocess.run(
                words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=500
            )
        finally:
            end_all(tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    states, said, whole, slots, packed, lanes = json.loads(done.stdout.strip().splitlines()[-1])
    assert states == ["COMPLETE"] * 4
    found = json.loads((tmp_path / "runs/grows/environment.json").read_text())
    assert len({worker["node_id"] for worker in found["workers"]}) == 2
    assert {worker["node_id"] for worker in found["workers"]} == {node.name for node in (tmp_path / "nodes").iterdir()}
    assert "asking the autoscaler for a node with CPU: 1, GPU: 1\n" in done.stderr  # which it cannot start
    assert "asking the autoscaler for a node with CPU: 1\n" in done.stderr
    assert said == ["asking the autoscaler for a node with CPU: 1, GPU: 1"]
    assert (whole, slots) == (1.0, 1)
    assert (packed, lanes) == (0.3333, 6)
