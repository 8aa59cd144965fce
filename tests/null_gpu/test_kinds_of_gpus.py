"""A cluster with several kinds of GPUs: the probe runs on the kind with the least memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from kdsweep.tune import accelerators
from kdsweep.tune.cluster import Share

pytestmark = pytest.mark.null_gpu


def found() -> list[Any]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    seen = []
    for kind, gigabytes in (("A100", 80), ("T4", 16), ("V100", 32)):
        named = {f"accelerator_type:{kind}": 1}
        cluster.add_node(num_cpus=1, num_gpus=1, resources=named, env_vars={"NULLCUDA_GB": str(gigabytes)})
        cluster.wait_for_nodes()
        seen.append(accelerators.smallest(1))
    wanted = Share(1, 1, 1, 1, seen[-1]).resources
    seen.append(wanted)
    ray.shutdown()
    cluster.shutdown()
    return seen


def test_the_kind_with_the_least_memory_is_found_and_leased(on_null_gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two, three, wanted = on_null_gpu(found, HOME=str(tmp_path), PATHS=str(Path(__file__).parent))
    assert one == ""  # all GPUs are of one kind
    assert two == three == "accelerator_type:T4"
    assert wanted == {"cpu": 1, "gpu": 1, "accelerator_type:T4": accelerators.LEAST}
