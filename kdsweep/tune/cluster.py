"""Connects to Ray and divides the cluster's resources among trials."""

from __future__ import annotations

import logging
import math
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.job_config import JobConfig

from kdsweep.config.spec import ResourcesSection
from kdsweep.errors import InputError

CONNECT_SECONDS = 10.0


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to Ray: the cluster this process has already joined, the one at `address`, or a new local one.

    Raises:
        InputError: If no Ray cluster can be reached at `address`.
    """
    if address is not None:
        _need_answer(address)
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
                f"--address {address}: cannot connect to a Ray cluster: {first}; accepted: auto on a cluster node, or "
                "HOST:PORT (set RAY_AUTH_MODE=token if the cluster requires a token)"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _need_answer(address: str) -> None:
    """Check that something listens at HOST:PORT: Ray itself would retry for minutes.

    Raises:
        InputError: If nothing does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        return  # `auto`, `local` or a name that Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address {address}: nothing answers there: {error}; accepted: auto on a cluster node, or HOST:PORT of "
            "the head"
        ) from error


def _without_cwd() -> JobConfig | None:
    """Keep Ray from putting the driver's current directory first on its workers' import path.

    A `json.py` there would take the place of Python's. A job that was submitted to a cluster brings its own config.
    """
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    return None if submitted else JobConfig(_client_job=True)


@dataclass(frozen=True)
class Share:
    """Resources of one trial, and how many trials run concurrently.

    Attributes:
        cpus: CPU cores per trial.
        gpus: GPUs per trial; may be a fraction.
        slots: Number of concurrent trials.
    """

    cpus: float
    gpus: float
    slots: int


def share(resources: ResourcesSection, can_grow: bool, per_gpu: int = 1) -> Share:
    """Resolve `auto` resources from the nodes of the cluster.

    Args:
        resources: The `resources` section of the sweep file.
        can_grow: Whether an autoscaler may add nodes. If so, a number for `max_concurrent` is used as given.
        per_gpu: Number of trials that fit into a GPU's memory.

    Raises:
        InputError: If no node can fit a trial, or GPU nodes that have not started would have to be counted.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if can_grow and resources.max_concurrent != "auto" and resources.gpus_per_trial == "auto":
        raise InputError(
            "resources.gpus_per_trial: 'auto' cannot be combined with a number for max_concurrent on a cluster, "
            "because GPU nodes that have not started cannot be counted; set a number"
        )
    cpus = float(resources.cpus_per_trial)
    gpus = _packed(nodes, cpus, per_gpu) if resources.gpus_per_trial == "auto" else float(resources.gpus_per_trial)
    slots = sum(_fitting(node, cpus, gpus) for node in nodes)
    if can_grow and resources.max_concurrent != "auto":
        return Share(cpus, gpus, resources.max_concurrent)
    if slots == 0:
        found = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"resources: no node can fit a trial of {cpus:g} CPUs and {gpus:g} GPUs; the cluster has {found}; request "
            "less per trial or, if an autoscaler starts nodes, set gpus_per_trial and max_concurrent to numbers"
        )
    if resources.max_concurrent != "auto":
        slots = min(slots, resources.max_concurrent)
    return Share(cpus, gpus, slots)


def _packed(nodes: list[dict[str, float]], cpus: float, per_gpu: int) -> float:
    """Return the GPU fraction per trial that packs as many trials as GPU memory and CPU cores allow."""
    with_gpus = [node for node in nodes if node.get("GPU", 0)]
    if not with_gpus:
        return 0.0
    served = max(int(node.get("CPU", 0) // (cpus * node["GPU"])) for node in with_gpus)
    # Ray's smallest resource unit is 1/10,000.
    return math.floor(10_000 / max(1, min(per_gpu, served))) / 10_000


def _fitting(node: dict[str, float], cpus: float, gpus: float) -> int:
    by_cpu = int(node.get("CPU", 0) // cpus)
    if gpus == 0:
        return by_cpu
    if gpus < 1:
        return min(by_cpu, int(node.get("GPU", 0)) * int(1 // gpus))
    return min(by_cpu, int(node.get("GPU", 0) // gpus))
