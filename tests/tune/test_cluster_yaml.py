"""cluster.yaml as `ray up` reads it: valid, scales from zero, only SSH is open. No cloud is contacted."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

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


@pytest.mark.parametrize(("lately", "chosen"), [({}, "gpu-spot"), ({"gpu-spot": 0.0}, "gpu-on-demand")])
def test_on_demand_machines_start_after_a_launch_of_spot_ones_failed(cluster, lately, chosen):
    """Asks the scheduler of Ray's autoscaler; 0.0 is how it keeps a failed launch."""
    sizes = {"head": {"CPU": 0}, "gpu-spot": {"CPU": 4, "GPU": 1}, "gpu-on-demand": {"CPU": 4, "GPU": 1}}
    kinds = {
        name: NodeTypeConfig(name, 0, kind["max_workers"], priority=kind.get("priority", 0), resources=sizes[name])
        for name, kind in cluster["available_node_types"].items()
    }
    waiting = [ResourceRequestUtil.make({"CPU": 1, "GPU": 0.25})] * 8
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=kinds,
        max_num_nodes=cluster["max_workers"],
        resource_requests=ResourceRequestUtil.group_by_count(waiting),
        cloud_resource_availabilities=lately,
        recoverable_resource_availabilities=lately,
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert {launch.instance_type: launch.count for launch in reply.to_launch} == {chosen: 2}
    assert reply.infeasible_resource_requests == []


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
