"""deploy/kuberay-rayjob.yaml, checked against the fields of KubeRay's RayJob and of Kubernetes' pods."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import command_lines
import pytest
import yaml
from jsonschema import Draft202012Validator
from misspelling import misspelt
from referencing import Registry, Resource

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parent / "schemas"
# Their keys are options of `ray start`, quantities by resource, and labels.
FREE = frozenset({"rayStartParams", "requests", "limits"})


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load((ROOT / "deploy/kuberay-rayjob.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def valid():
    schemas = {name: json.loads((SCHEMAS / f"{name}.json").read_text()) for name in ("kuberay", "kubernetes")}
    registry = Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in schemas.values())
    return Draft202012Validator(schemas["kuberay"], registry=registry).is_valid


@pytest.fixture
def pods(job):
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_file_is_a_valid_rayjob_and_no_key_can_be_misspelt(job, valid):
    assert valid(job)
    accepted = [path for path, changed in misspelt(job, FREE) if valid(changed)]
    assert accepted == []


def test_a_shared_volume_takes_the_place_of_the_object_store(job, valid):
    on_volume = copy.deepcopy(job)
    for pod in [on_volume["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]]:
        (storage,) = (volume for volume in pod["volumes"] if volume["name"] == "storage")
        del storage["emptyDir"]
        storage["persistentVolumeClaim"] = {"claimName": "runs"}
    assert valid(on_volume)
    storage["persistentVolumeClaim"] = {"claim": "runs"}
    assert not valid(on_volume)


def test_gpu_pods_scale_from_zero_and_the_cluster_ends_with_the_sweep(job):
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert cluster["enableInTreeAutoscaling"] is True
    assert (workers["minReplicas"], workers["maxReplicas"]) == (0, 8)
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_ray_start_takes_the_parameters_of_the_groups(job):
    cluster = job["spec"]["rayClusterSpec"]
    flags = {flag for parameter in command_lines.RAY["start"].params for flag in parameter.opts}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert {f"--{name}" for name in group["rayStartParams"]} <= flags


def test_the_entrypoint_is_a_command_of_kdsweep_that_may_be_started_again(job):
    (command,) = command_lines.check(job["spec"]["entrypoint"])
    assert "--resume" in command.split()
    assert "resources." not in command  # no numbers, which takes this version:
    assert job["spec"]["rayClusterSpec"]["autoscalerOptions"]["version"] == "v2"


def test_a_sweep_starts_where_it_can_write_and_finds_the_file_and_modules_of_the_config_map(job, pods):
    folder, spec = re.search(r"cd (\S+) && kdsweep run (\S+)", job["spec"]["entrypoint"]).groups()
    for pod in pods:
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        config = next(volume["name"] for volume in pod["volumes"] if "configMap" in volume)
        assert not mounts[folder].get("readOnly")  # a relative dataset.root is there
        assert mounts[str(Path(spec).parent)]["name"] == config
        assert {"name": "PYTHONPATH", "value": str(Path(spec).parent)} in container["env"]


def test_pods_have_no_rights_and_no_written_secrets(job, pods):
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["envFrom"] == [{"secretRef": {"name": "kdsweep-storage", "optional": True}}]
        assert {variable["name"] for variable in container["env"]} == {
            "KDSWEEP_CACHE",
            "KDSWEEP_CACHE_GB",
            "PYTHONPATH",
        }
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_image_and_ray_are_those_of_the_dockerfile(job, pods):
    images = {container["image"] for pod in pods for container in pod["containers"]}
    assert len(images) == 1
    assert f"-t {images.pop()} " in (ROOT / "deploy/Dockerfile").read_text()
    pinned = (ROOT / "deploy/constraints.txt").read_text().split()
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in pinned
