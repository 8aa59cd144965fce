"""Connects to Ray and divides the cluster's resources among trials."""

from __future__ import annotations

import logging
import math
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.job_config import JobConfig

from kdsweep.config.spec import ResourcesSection
from kdsweep.errors import InputError
from kdsweep.tune import accelerators, autoscaler
from kdsweep.tune.failures import version_mismatch
from kdsweep.words import count_of, kind_of

CONNECT_SECONDS = 10.0
LEAST = 1e-4  # Ray's smallest unit of a resource
UNLIMITED = 2**31  # lanes; the sweep's work limits them
VARIABLE, JOB = "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"  # which Ray sets in a job


@dataclass(frozen=True)
class Address:
    """Which Ray cluster to use.

    Attributes:
        text: `auto` or HOST:PORT; None starts a local cluster.
        source: Where the address comes from, for messages.
    """

    text: str | None
    source: str

    @classmethod
    def chosen(cls, given: str | None) -> Address:
        """Return the given address, else that of the environment: Ray sets RAY_ADDRESS in every job.

        Args:
            given: `auto`, HOST:PORT, or `local` for a new local cluster; None or empty uses the environment.

        Raises:
            InputError: If it is the address of a dashboard, or no text.
        """
        if given is not None and not isinstance(given, str):
            raise InputError(f"address: found {kind_of(given)}; accepted: auto, local, HOST:PORT or None")
        inherited = os.environ.get(VARIABLE)
        found = cls(given, f"--address {given}") if given else cls(inherited, f"{VARIABLE}={inherited}")
        if found.text and found.text.startswith(("http://", "https://")):
            raise InputError(
                f"{found.source}: a dashboard, to which kdsweep submit sends sweeps; accepted: auto, HOST:PORT of the "
                "head, or --address local for a Ray of its own"
            )
        return cls(None, found.source) if found.text in (None, "", "local") else found


@contextmanager
def connected(given: Address | None) -> Iterator[None]:
    """Connect to Ray: the cluster this process has already joined, the given one, or a new local one.

    Args:
        given: The address; None starts a local cluster.

    Raises:
        InputError: If no Ray cluster can be reached there.
    """
    address = given or Address(None, "")
    need_answer(address)
    if ray.is_initialized():
        yield
        return
    with warnings.catch_warnings(), _own_job(address):
        warnings.simplefilter("ignore")
        target = {"address": "local", "include_dashboard": False} if address.text is None else {"address": address.text}
        try:
            config: Any = _without_cwd()
            ray.init(**target, job_config=config, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(_refused(address, str(error).strip() or type(error).__name__)) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def joined(given: str | None) -> Iterator[None]:
    """Join the cluster of an address before anything is read or written; a local cluster is started when it is needed.

    Args:
        given: As in `Address.chosen`.

    Raises:
        InputError: If no Ray cluster can be reached there.
    """
    address = Address.chosen(given)
    with connected(address) if address.text is not None else nullcontext():
        yield


def _refused(address: Address, reason: str) -> str:
    if mismatch := version_mismatch(reason):
        return f"{address.source}: {mismatch}"
    accepted = "auto on a cluster node, or HOST:PORT (set RAY_AUTH_MODE=token if the cluster requires a token)"
    return f"{address.source}: cannot connect to a Ray cluster: {reason.splitlines()[0]}; accepted: {accepted}"


@contextmanager
def _own_job(address: Address) -> Iterator[None]:
    """Keep a local cluster, started inside a Ray job, from taking over that job's runtime environment."""
    inherited = os.environ.pop(JOB, None) if address.text is None else None
    try:
        yield
    finally:
        if inherited is not None:
            os.environ[JOB] = inherited


def need_answer(address: Address) -> None:
    """Check that something listens at HOST:PORT, if that is the address: Ray itself would retry for minutes.

    Raises:
        InputError: If nothing does.
    """
    host, colon, port = str(address.text).removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        return  # `auto`, `local` or a name that Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"{address.source}: nothing answers there: {error}; accepted: auto on a cluster node, or "
            "HOST:PORT of the head"
        ) from error


def _without_cwd() -> JobConfig | None:
    """Keep Ray from putting the driver's current directory first on its workers' import path.

    A `json.py` there would take the place of Python's. A job that was submitted to a cluster brings its own config.
    """
    return None if JOB in os.environ else JobConfig(_client_job=True)


@dataclass(frozen=True)
class Share:
    """Resources of one trial, and how many trials run concurrently.

    Attributes:
        cpus: CPU cores per trial.
        gpus: GPUs per trial; may be a fraction.
        slots: Number of concurrent trials.
        most: The same after an autoscaler has added nodes for as many as it may; `slots` without one.
        kind: Resource of the kind of GPU, such as `accelerator_type:T4`; empty for any.
    """

    cpus: float
    gpus: float
    slots: int
    most: int
    kind: str = ""

    def at_most(self, lanes: int) -> Share:
        """Return the same with at most so many concurrent trials."""
        return replace(self, slots=min(self.slots, lanes), most=min(self.most, lanes))

    @property
    def resources(self) -> dict[str, float]:
        """What Ray has to lease for a lane."""
        return {"cpu": self.cpus, "gpu": self.gpus} | ({self.kind: accelerators.LEAST} if self.kind else {})


def cluster_size() -> str:
    """Describe the cluster: `3 nodes, 12 CPUs, 2 GPUs`."""
    nodes = _nodes()
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return f"{count_of(len(nodes), 'node')}, {count_of(cpus, 'CPU')}, {count_of(gpus, 'GPU')}"


def share(
    resources: ResourcesSection,
    can_grow: bool,
    tell: Callable[[str], None],
    per_gpu: int = 1,
    capture: bool = False,
) -> Share:
    """Resolve `auto` resources from the nodes of the cluster, and from those that its autoscaler starts.

    Args:
        resources: The `resources` section of the sweep file.
        can_grow: Whether an autoscaler may add nodes. If so, a number for `max_concurrent` is used as given.
        tell: Receives one line when a node has to start first.
        per_gpu: Number of trials that fit into a GPU's memory.
        capture: Whether steps are to be captured, which needs a GPU.

    Raises:
        InputError: If no node can fit a trial, GPU nodes that have not started would have to be counted, or trials that
            need a GPU would get none.
    """
    cpus, most = float(resources.cpus_per_trial), resources.max_concurrent
    if capture and resources.gpus_per_trial == 0:
        raise InputError(_no_capture("resources.gpus_per_trial is 0"))
    if can_grow and most != "auto" and resources.gpus_per_trial != "auto":
        return Share(cpus, float(resources.gpus_per_trial), most, most)
    grows = can_grow and autoscaler.adds_nodes()
    if grows:
        _start_first(resources, tell)
    elif can_grow and most != "auto":
        raise InputError(
            "resources.gpus_per_trial: 'auto' cannot be combined with a number for max_concurrent on a cluster without "
            "version 2 of Ray's autoscaler, because GPU nodes that have not started cannot be counted; set a number"
        )
    nodes = _nodes()
    gpus = _packed(nodes, cpus, per_gpu) if resources.gpus_per_trial == "auto" else float(resources.gpus_per_trial)
    if capture and not gpus:
        raise InputError(_no_capture("the cluster has no GPU"))
    slots = sum(_fitting(node, cpus, gpus) for node in nodes)
    if slots == 0:
        raise InputError(_no_node(nodes, cpus, gpus, grows))
    if most == "auto":
        return Share(cpus, gpus, slots, UNLIMITED if grows else slots)
    slots = most if grows else min(slots, most)
    return Share(cpus, gpus, slots, slots)


def _no_capture(why: str) -> str:
    return f"train.capture: found true, but {why}; accepted: false, or trials with GPUs"


def _no_node(nodes: list[dict[str, float]], cpus: float, gpus: float, grows: bool) -> str:
    found = "; ".join(_size(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
    accepted = (
        "none that its autoscaler may start can, either; request less per trial"
        if grows
        else "request less per trial or, if version 1 of Ray's autoscaler starts nodes, set gpus_per_trial and "
        "max_concurrent to numbers"
    )
    return f"resources: no node can fit a trial of {_size(cpus, gpus)}; the cluster has {found}; {accepted}"


def _size(cpus: float, gpus: float) -> str:
    return f"{count_of(float(cpus), 'CPU')} and {count_of(float(gpus), 'GPU')}"


def _start_first(resources: ResourcesSection, tell: Callable[[str], None]) -> None:
    """Wait for the first node that fits a trial, if there is none. `auto` prefers nodes with GPUs, if there are any."""
    cpus, gpus = float(resources.cpus_per_trial), resources.gpus_per_trial
    for needed in (1.0, 0.0) if gpus == "auto" else (float(gpus),):
        if any(_fitting(node, cpus, needed) for node in _nodes()):
            return
        bundle = {"CPU": cpus, "GPU": needed} if needed else {"CPU": cpus}
        tell(f"asking the autoscaler for a node with {', '.join(f'{kind}: {one:g}' for kind, one in bundle.items())}")
        if autoscaler.started(bundle):
            return


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


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
        return min(by_cpu, int(node.get("GPU", 0)) * int(1 / gpus + LEAST))  # 1 // 0.2 is 4
    return min(by_cpu, int(node.get("GPU", 0) // gpus))
