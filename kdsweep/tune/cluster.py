"""Joining or starting Ray, quietly, and what its nodes have."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.job_config import JobConfig

from kdsweep.config.spec import ResourcesSection
from kdsweep.errors import InputError


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Have Ray for a while: the one at `address`, the one this process already joined, or a local one.

    Raises:
        InputError: If there is no Ray at `address`.
    """
    if ray.is_initialized():
        yield
        return
    target = {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config: Any = _without_cwd()
            ray.init(**target, job_config=config, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"--address {address}: no Ray cluster answers: {first}; accepted: auto on a node of the cluster, or "
                "HOST:PORT (with RAY_AUTH_MODE=token if it asks for a token)"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _without_cwd() -> JobConfig | None:
    """Keep Ray from putting the driver's current directory first on its workers' import path.

    A `json.py` there would take the place of Python's. A job that was submitted to a cluster brings its own config.
    """
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    return None if submitted else JobConfig(_client_job=True)


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


def share(resources: ResourcesSection, can_grow: bool, per_gpu: int = 1) -> Share:
    """Settle `auto` by what the cluster has.

    Args:
        resources: What was asked for.
        can_grow: Whether an autoscaler may add nodes; then a number for `max_concurrent` is taken at its word.
        per_gpu: Trials that fit into a GPU's memory.

    Raises:
        InputError: If not even one trial fits.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if can_grow and resources.max_concurrent != "auto" and resources.gpus_per_trial == "auto":
        raise InputError(
            "resources.gpus_per_trial: found 'auto' beside a number for max_concurrent; accepted: a number, for "
            "GPU nodes that are yet to start cannot be counted"
        )
    cpus = float(resources.cpus_per_trial)
    gpus = _packed(nodes, cpus, per_gpu) if resources.gpus_per_trial == "auto" else float(resources.gpus_per_trial)
    places = sum(_fitting(node, cpus, gpus) for node in nodes)
    if can_grow and resources.max_concurrent != "auto":
        return Share(cpus, gpus, resources.max_concurrent)
    if places == 0:
        found = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"resources: a trial of {cpus:g} CPUs and {gpus:g} GPUs fits on no node; the cluster has {found}; "
            "accepted: a smaller share, or, for nodes that an autoscaler is yet to start, numbers for gpus_per_trial "
            "and max_concurrent"
        )
    if resources.max_concurrent != "auto":
        places = min(places, resources.max_concurrent)
    return Share(cpus, gpus, places)


def _packed(nodes: list[dict[str, float]], cpus: float, per_gpu: int) -> float:
    """The share of a GPU that leaves room for as many trials as its memory holds and its node's cores serve."""
    with_gpus = [node for node in nodes if node.get("GPU", 0)]
    if not with_gpus:
        return 0.0
    served = max(int(node.get("CPU", 0) // (cpus * node["GPU"])) for node in with_gpus)
    # Ray counts in ten thousandths.
    return math.floor(10_000 / max(1, min(per_gpu, served))) / 10_000


def _fitting(node: dict[str, float], cpus: float, gpus: float) -> int:
    by_cpu = int(node.get("CPU", 0) // cpus)
    if gpus == 0:
        return by_cpu
    if gpus < 1:
        return min(by_cpu, int(node.get("GPU", 0)) * int(1 // gpus))
    return min(by_cpu, int(node.get("GPU", 0) // gpus))
