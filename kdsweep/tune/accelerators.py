"""Which kind of GPU in the cluster has the least memory: what fits there fits everywhere."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray

from kdsweep.lazy import torch

# A node's resource that Ray names after the kind of its GPUs, such as `accelerator_type:T4`.
KIND = "accelerator_type:"
# Of a resource that only says where to run, the smallest share that there is.
LEAST = 1e-4
ANSWER_SECONDS = 60.0


def smallest(cpus: float) -> str:
    """Return the resource of the kind of GPU with the least memory; empty if all GPUs are of one kind.

    A kind is left out if no node of it has a whole GPU and the cores for a lane, if others lease them for a minute, or
    if PyTorch cannot use its GPUs, which the trials there will say.

    Args:
        cpus: CPU cores of a lane.
    """
    kinds = sorted({kind for node in ray.nodes() if node["Alive"] for kind in _kinds(node["Resources"], cpus)})
    if len(kinds) < 2:
        return ""
    asked = {_memory.options(num_cpus=cpus, num_gpus=1, resources={kind: LEAST}).remote(): kind for kind in kinds}
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    for one in late:
        ray.cancel(one, force=True)
    memory: dict[str, int] = {}
    for one in done:
        with suppress(ray.exceptions.RayError):
            memory[asked[one]] = ray.get(one)
    return min(memory, key=lambda kind: memory[kind], default="")


def _kinds(resources: dict[str, float], cpus: float) -> list[str]:
    fits = resources.get("GPU", 0) >= 1 and resources.get("CPU", 0) >= cpus
    return [name for name in resources if name.startswith(KIND)] if fits else []


def _total_memory() -> int:
    return int(torch.cuda.get_device_properties(0).total_memory)


_memory: Any = ray.remote(_total_memory)
