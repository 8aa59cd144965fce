"""The device that Ray leased to this worker: the one place that decides between CPU and GPU."""

from __future__ import annotations

import subprocess
from pathlib import Path

import ray

from kdsweep.errors import DeviceError
from kdsweep.lazy import torch
from kdsweep.worker import process
from kdsweep.worker.place import WorkerPlace
from kdsweep.worker.workbench import Workbench, open_workbench

_DRIVER = Path("/proc/driver/nvidia/version")


def leased_device() -> torch.device:
    """The GPU that Ray leased to this worker; without a lease, the CPU.

    Raises:
        DeviceError: If there is a lease, but PyTorch sees no GPU. Training on the CPU instead would look like success.
    """
    gpus = ray.get_gpu_ids()
    if not gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        node = ray.util.get_node_ip_address()
        raise DeviceError(
            f"Ray leased GPU {gpus[0]} to a worker on {node}, but PyTorch {torch.__version__} sees no GPU there "
            f"(NVIDIA driver: {nvidia_driver()}); install a PyTorch built for that driver, or set "
            "resources.gpus_per_trial to 0"
        )
    return torch.device("cuda")


def warm_workbench(place: WorkerPlace) -> Workbench:
    """This worker's workbench, in a process that is set up to train.

    Raises:
        DeviceError: As `leased_device` does.
    """
    bench = open_workbench(place, leased_device())
    process.set_up(bench.spec.resources.cpus_per_trial)
    return bench


def device_name(device: torch.device) -> str:
    """What a GPU is called; empty for a CPU."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else ""


def nvidia_driver() -> str:
    """The version of this node's NVIDIA driver, or `none`."""
    try:
        return next(word for word in _DRIVER.read_text().split() if word[0].isdigit() and "." in word)
    except (OSError, StopIteration):
        pass
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout.split()
    except (OSError, subprocess.SubprocessError):
        found = []
    return found[0] if found else "none"
