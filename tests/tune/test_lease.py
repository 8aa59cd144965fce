"""A worker uses the device that Ray leased to it, or fails."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from kdsweep.tune.lease import leased_device, nvidia_driver

SCRIPT = """
import sys
import ray
import torch
import kdsweep
from kdsweep.tune.lease import leased_device

ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
print(ray.get(ray.remote(num_cpus=1)(lambda: str(leased_device(False))).remote()))
try:
    kdsweep.run(kdsweep.load_spec(sys.argv[1], {"resources.gpus_per_trial": 1}))
except kdsweep.KdsweepError as error:
    print(type(error).__name__, error.exit_code, error)
"""


def test_without_a_lease_the_device_is_the_cpu(local_ray):
    assert leased_device(False) == torch.device("cpu")


@pytest.mark.slow
def test_a_leased_gpu_that_torch_cannot_see_stops_the_sweep_and_names_the_versions(sweep_file):
    """Ray is given a nonexistent GPU. Runs in its own process, because the other tests share a local Ray."""
    command = [sys.executable, "-c", SCRIPT, str(sweep_file)]
    environment = {"CUDA_VISIBLE_DEVICES": ""} if torch.cuda.is_available() else {}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    without_lease, with_lease = done.stdout.strip().splitlines()
    assert without_lease == "cpu"
    assert "Ray leased GPU 0 to a worker on " in with_lease
    assert f"PyTorch {torch.__version__} sees no GPU there (NVIDIA driver: {nvidia_driver()})" in with_lease
    assert not list(sweep_file.parent.glob("runs/small/trials/*"))
