"""Joining or starting Ray, quietly, and what its nodes have."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kdsweep.errors import InputError
from kdsweep.spec import ResourcesSection


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Have Ray for a while: the one at `address`, the one this process already joined, or a local one.

    Raises:
        InputError: If there is no Ray at `address`.
    """
    _quiet()
    import ray

    if ray.is_initialized():
        yield
        return
    target = {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ray.init(**target, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"--address {address}: no Ray cluster answers: {first}; accepted: auto, HOST:PORT or ray://HOST:PORT"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _quiet() -> None:
    """Before Ray is imported: no second environment per worker under `uv run`, no loggers, no chatter."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "60")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")


@dataclass(frozen=True)
class Share:
    """What one trial takes of the cluster.

    Attributes:
        cpus: Cores.
        gpus: Of a GPU, or GPUs.
        places: Trials at a time.
    """

    cpus: float
    gpus: float
    places: int


def share(resources: ResourcesSection) -> Share:
    """Settle `auto` by what the cluster has.

    Raises:
        InputError: If not even one trial fits.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_gpu = any(node.get("GPU", 0) for node in nodes)
    gpus = float(has_gpu) if resources.gpus_per_trial == "auto" else float(resources.gpus_per_trial)
    cpus = float(resources.cpus_per_trial)
    places = sum(_fitting(node, cpus, gpus) for node in nodes)
    if places == 0:
        found = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"resources: a trial of {cpus:g} CPUs and {gpus:g} GPUs fits on no node; the cluster has {found}"
        )
    if resources.max_concurrent != "auto":
        places = min(places, resources.max_concurrent)
    return Share(cpus, gpus, places)


def _fitting(node: dict[str, float], cpus: float, gpus: float) -> int:
    by_cpu = int(node.get("CPU", 0) // cpus)
    if gpus == 0:
        return by_cpu
    if gpus < 1:
        return min(by_cpu, int(node.get("GPU", 0)) * int(1 // gpus))
    return min(by_cpu, int(node.get("GPU", 0) // gpus))
