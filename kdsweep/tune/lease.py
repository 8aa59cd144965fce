"""The device that Ray leased to this worker. Only this module decides between CPU and GPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import ray

from kdsweep.errors import DeviceError
from kdsweep.lazy import torch
from kdsweep.storage.environment import describe_process, processor, utc_now
from kdsweep.worker import gpu, process
from kdsweep.worker.place import WorkerPlace
from kdsweep.worker.workbench import Workbench, open_workbench

_DRIVER = Path("/proc/driver/nvidia/version")


def leased_device(alone: bool) -> torch.device:
    """Return the GPU that Ray leased to this worker, set up for training, or the CPU if there is no lease.

    Args:
        alone: Whether no other worker trains meanwhile. If so, this one may use all of the GPU's memory.

    Raises:
        DeviceError: If a GPU is leased but PyTorch sees none. A silent fallback to the CPU would look like success.
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
    gpu.set_up()
    device = torch.device("cuda")
    gpu.limit_memory(device, 1 if alone else leased_share())
    return device


def leased_share() -> float:
    """Return the share of a GPU that Ray leased to this worker."""
    return float(ray.get_runtime_context().get_assigned_resources().get("GPU", 0))


def warm_workbench(place: WorkerPlace, alone: bool) -> Workbench:
    """Return this worker's workbench and set up the process for training.

    Args:
        place: The sweep's paths for workers.
        alone: See `leased_device`.

    Raises:
        DeviceError: If a GPU is leased but PyTorch sees none.
    """
    bench = open_workbench(place, leased_device(alone))
    process.set_up(bench.spec.resources.cpus_per_trial)
    return bench


def device_name(device: torch.device) -> str:
    """Return the name of a GPU; empty for the CPU."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else ""


def describe_worker() -> dict[str, Any]:
    """Return where this worker process runs, on which device, and with which versions."""
    context = ray.get_runtime_context()
    worker = {
        "node": ray.util.get_node_ip_address(),
        "node_id": context.get_node_id(),
        "worker": context.get_worker_id(),
        "pid": os.getpid(),
        "started": utc_now(),
        "device": "cpu",
        "processor": processor(),
        **describe_process(),
    }
    gpus = ray.get_gpu_ids()
    if not gpus:
        return worker
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU not usable"
    return worker | {"device": device, "gpu_ids": list(gpus), "cuda": torch.version.cuda, "driver": nvidia_driver()}


def nvidia_driver() -> str:
    """Return the version of this node's NVIDIA driver, or `none`."""
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
