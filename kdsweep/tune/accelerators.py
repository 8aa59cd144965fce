"""Which kind of GPU in the cluster has the least memory: what fits there fits everywhere."""

from __future__ import annotations

from typing import Any

import ray

from kdsweep.lazy import torch

# A node's resource that Ray names after the kind of its GPUs, such as `accelerator_type:T4`.
KIND = "accelerator_type:"
# Of a resource that only says where to run, the smallest share that there is.
LEAST = 1e-4
ANSWER_SECONDS = 60.0


def smallest() -> str:
    """Return the resource of the kind of GPU with the least memory; empty if all GPUs are of one kind.

    A kind whose GPUs are all leased by others for a minute is left out.
    """
    kinds = sorted({kind for node in ray.nodes() if node["Alive"] for kind in _kinds(node["Resources"])})
    if len(kinds) < 2:
        return ""
    asked = {_memory.options(num_cpus=0, num_gpus=LEAST, resources={kind: LEAST}).remote(): kind for kind in kinds}
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    for one in late:
        ray.cancel(one, force=True)
    memory = {asked[one]: ray.get(one) for one in done}
    return min(memory, key=lambda kind: memory[kind], default="")


def _kinds(resources: dict[str, float]) -> list[str]:
    return [name for name in resources if name.startswith(KIND)] if resources.get("GPU", 0) else []


def _total_memory() -> int:
    return int(torch.cuda.get_device_properties(0).total_memory)


_memory: Any = ray.remote(_total_memory)
