"""CUDA in a worker: how numbers are computed, how memory is limited and returned, and whether the GPU still works.

No other module changes PyTorch's CUDA settings.
"""

from __future__ import annotations

import gc
import os
from typing import Any

from kdsweep.lazy import torch
from kdsweep.worker.capacity import CONTEXT_BYTES

# Read by PyTorch and cuBLAS when a process uses CUDA for the first time. The user's own values are kept.
ENVIRONMENT = {
    # Trials of several sizes follow each other in a process; without it, freed memory is left in pieces.
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    # Without it, cuBLAS may add in another order in every run.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def set_up() -> None:
    """Set up this process for CUDA, before its first use.

    In `float32`, convolutions use TF32 (10 bits of mantissa) on GPUs that have it, and matrix products do not: these
    are PyTorch's defaults, set here so that they do not depend on its version. A resumed trial must repeat the numbers
    of an uninterrupted one, so operations are deterministic where PyTorch has such an algorithm; otherwise it warns.
    """
    if "PYTORCH_ALLOC_CONF" not in os.environ:  # the new name of PYTORCH_CUDA_ALLOC_CONF
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False  # it chooses by time, so differently in every process
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # a check for reads of it, which costs a kernel per tensor


def limit_memory(device: torch.device, share: float) -> None:
    """Limit this process to its share of the GPU's memory, so that a greedy trial does not make others fail.

    Args:
        device: The GPU.
        share: The leased share; from 1 on there is no limit.
    """
    limit = 1.0
    if share < 1:
        total = torch.cuda.get_device_properties(device).total_memory
        # PyTorch does not count the CUDA context. A very small share leaves half of itself.
        limit = max(share / 2, share - CONTEXT_BYTES / total)
    torch.cuda.set_per_process_memory_fraction(limit)


def release() -> None:
    """Return the memory that nothing uses any more to the GPU.

    Exceptions must be gone, because their frames hold tensors, and there must be no `fault`.
    """
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def fault() -> str:
    """Return the CUDA error from which this process cannot recover, such as an illegal access; empty without one."""
    if not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or the one behind it, says that the GPU's memory is exhausted."""
    while error is not None:
        text = str(error)
        library = isinstance(error, RuntimeError) and ("CUDA error: out of memory" in text or "ALLOC_FAILED" in text)
        if isinstance(error, torch.OutOfMemoryError) or library:
            return True
        error = error.__cause__ or error.__context__
    return False


def described(device: torch.device) -> dict[str, Any]:
    """Describe a worker's GPU; empty for the CPU."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }
