"""deploy/slurm.sbatch and deploy/skypilot.yaml: their keys, options and commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import command_lines
import pytest
import yaml
from jsonschema import Draft202012Validator
from misspelling import misspelt

ROOT = Path(__file__).parents[2]
# Of sbatch(1), as far as a sweep may want them.
SBATCH = {"job-name", "nodes", "ntasks-per-node", "cpus-per-task", "exclusive", "gpus-per-node", "time", "requeue",
          "signal", "output", "open-mode", "partition", "account", "mem", "constraint"}  # fmt: skip
SLURM_VARIABLES = {"SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NNODES"}
SKYPILOT_VARIABLES = {"SKYPILOT_NODE_IPS", "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"}


def test_slurm_starts_one_process_per_node_that_runs_the_sweep():
    script = (ROOT / "deploy/slurm.sbatch").read_text(encoding="utf-8")
    options = re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE)
    assert set(options) <= SBATCH
    assert len(options) == script.count("#SBATCH")
    assert set(re.findall(r"SLURM_[A-Z_]+", script)) == SLURM_VARIABLES
    symmetric, run = command_lines.check(script)
    assert "--min-nodes" in symmetric
    assert "--resume" in run.split()
    assert "#SBATCH --ntasks-per-node=1\n" in script


@pytest.fixture(scope="module")
def task():
    return yaml.safe_load((ROOT / "deploy/skypilot.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def schemas():
    return json.loads((Path(__file__).parent / "schemas/skypilot.json").read_text())


def test_no_key_of_the_skypilot_task_can_be_misspelt(task, schemas):
    whole, resources = (Draft202012Validator(schemas[name]) for name in ("task", "resources"))
    assert whole.is_valid(task)
    assert resources.is_valid(task["resources"])
    free = frozenset({"envs", "secrets", "resources", "job_recovery"})
    assert [path for path, changed in misspelt(task, free) if whole.is_valid(changed)] == []
    assert [path for path, changed in misspelt(task["resources"], free) if resources.is_valid(changed)] == []
    # SkyPilot's schema takes any key there; these are the ones that sky/jobs/recovery_strategy.py reads.
    assert task["resources"]["job_recovery"].keys() == {"strategy", "max_restarts_on_errors"}


def test_the_skypilot_task_joins_its_machines_with_a_token(task):
    joined, ran, waited, worker = command_lines.check(task["run"])
    assert joined.startswith("ray start --head")
    assert worker.startswith("ray start --address")
    assert waited.startswith("ray health-check")
    assert "--resume" in ran.split()
    assert task["envs"]["RAY_AUTH_MODE"] == "token"
    assert set(re.findall(r"SKYPILOT_[A-Z_]+", task["run"])) == SKYPILOT_VARIABLES
    assert "ray stop" not in task["run"]  # it would end SkyPilot's own Ray


def test_the_skypilot_task_installs_the_pinned_packages(task):
    assert "--constraints deploy/constraints.txt '.[cluster]'" in task["setup"]
    assert not re.search(r"\bSKYPILOT", task["setup"])
