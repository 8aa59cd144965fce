"""cluster.yaml as `ray up` reads it: valid, scales from zero, only SSH is open. No cloud is contacted."""

from __future__ import annotations

import re
import time
from functools import partial
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.constants import AUTOSCALER_UTILIZATION_SCORER_KEY
from ray.autoscaler._private.loader import load_function_or_class
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.resource_demand_scheduler import get_nodes_for
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException

ROOT = Path(__file__).parents[2]
SSH = 22


@pytest.fixture(scope="module")
def cluster():
    """The file with Ray's defaults filled in, which its validator accepts."""
    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8")))
    validate_config(config)
    return config


@pytest.fixture
def head(cluster):
    return cluster["available_node_types"][cluster["head_node_type"]]


@pytest.fixture
def workers(cluster):
    return [kind for name, kind in cluster["available_node_types"].items() if name != cluster["head_node_type"]]


def test_the_validator_rejects_unknown_keys(cluster):
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config({**cluster, "max_wrokers": 8})


def test_gpu_workers_scale_from_zero_on_spot_machines(cluster):
    spot, on_demand = (cluster["available_node_types"][f"gpu-{market}"] for market in ("spot", "on-demand"))
    assert (spot["min_workers"], spot["max_workers"], cluster["max_workers"]) == (0, 8, 8)
    assert (on_demand["min_workers"], on_demand["max_workers"]) == (0, 2)
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert spot["node_config"]["InstanceType"].startswith("g")
    del spot["node_config"]["InstanceMarketOptions"]
    assert spot["node_config"] == on_demand["node_config"]


@pytest.mark.parametrize(("failed", "chosen"), [([], "gpu-spot"), (["gpu-spot"], "gpu-on-demand")])
def test_the_autoscaler_starts_on_demand_machines_only_while_spot_ones_cannot_be_had(cluster, failed, chosen):
    """Asks Ray's scheduler, with the function that the start command of the head names."""
    start = cluster["head_start_ray_commands"][-1]
    (name,) = re.findall(rf"{AUTOSCALER_UTILIZATION_SCORER_KEY}=(\S+)", start)
    tracker = NodeProviderAvailabilityTracker()
    for kind in failed:
        error = NodeLaunchException("InsufficientInstanceCapacity", "no capacity", None)
        tracker.update_node_availability(kind, int(time.time()), error)
    scorer = partial(load_function_or_class(name), node_availability_summary=tracker.summary())
    sizes = {"head": {"CPU": 0}, "gpu-spot": {"CPU": 4, "GPU": 1}, "gpu-on-demand": {"CPU": 4, "GPU": 1}}
    kinds = {
        name: {"resources": sizes[name], "max_workers": kind["max_workers"]}
        for name, kind in cluster["available_node_types"].items()
    }
    waiting = [{"CPU": 1, "GPU": 0.25}] * 8
    to_start, unserved = get_nodes_for(kinds, {}, "head", 8, waiting, scorer)
    assert dict(to_start) == {chosen: 2}
    assert unserved == []
    assert get_nodes_for(kinds, {}, "head", 8, [{"TPU": 1}], scorer)[1] == [{"TPU": 1}]


def test_the_head_is_an_on_demand_machine_that_runs_no_trials(cluster, head):
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert "--num-cpus=0" in cluster["head_start_ray_commands"][-1]


def test_only_ssh_is_open(cluster):
    rules = cluster["provider"]["security_group"].get("IpPermissions", [])
    assert [rule for rule in rules if not rule["FromPort"] == rule["ToPort"] == SSH] == []
    (start,) = (command for command in cluster["head_start_ray_commands"] if "ray start" in command)
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text(encoding="utf-8")


def test_every_machine_requires_the_token_and_has_it(cluster):
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    assert ["RAY_AUTH_MODE=token ray start" in command for command in starts if "ray start" in command] == [True, True]
    assert cluster["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 /home/ubuntu/.ray/auth_token" in cluster["initialization_commands"]


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_setup_installs_kdsweep_and_mounts_the_storage(cluster, kind):
    commands = cluster[f"{kind}_setup_commands"]
    (install,) = (command for command in commands if "[cluster]" in command)
    assert "uv pip install --python $HOME/env/bin/python " in install
    assert "--constraints $HOME/kdsweep/deploy/constraints.txt " in install
    assert install.startswith("UV_CACHE_DIR=/mnt/kdsweep/")
    assert commands.index(install) > next(n for n, command in enumerate(commands) if "chown ubuntu:ubuntu" in command)
    assert "uv venv --python 3.12" in commands[commands.index(install) - 1]
    assert "--python-version 3.12 " in (ROOT / "deploy/constraints.txt").read_text()
    assert install.endswith('"$HOME/kdsweep[cluster]"')
    (mount,) = (command for command in commands if "mount -t nfs4" in command)
    assert mount.endswith(":/ /mnt/kdsweep")


def test_mounted_files_exist_in_the_checkout_and_suffice_for_the_build(cluster):
    mounts = {remote: local for remote, local in cluster["file_mounts"].items() if remote.startswith("/home/ubuntu/kd")}
    assert all((ROOT / local).exists() for local in mounts.values())
    assert {"kdsweep", "pyproject.toml", "README.md", "LICENSE"} <= set(mounts.values())
    assert {remote.removeprefix("/home/ubuntu/kdsweep/") for remote in mounts} == set(mounts.values())


def test_account_specific_values_are_placeholders(cluster, head, workers):
    images = {kind["node_config"]["ImageId"] for kind in [head, *workers]}
    assert images == {"ami-REPLACE-ME"}
    assert sum("fs-REPLACE-ME" in command for command in cluster["setup_commands"]) == 1
