"""How many samples a model takes at a time when it is not trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdsweep.lazy import torch
from kdsweep.tasks import Samples

# A CPU is twice as fast when the activations fit in its caches.
CPU_BATCH = 128
MOST = 2048
# What the activations of a batch may take on a GPU. As many samples as a constant number of them would take 289 MB of
# a small student and 15 GB of a ResNet-18 at 224 pixels.
GPU_BYTES = 128e6
TRIED = 8


def batch_size(forward: Callable[[torch.Tensor], Any], samples: Samples, cpu: int = CPU_BATCH, most: int = MOST) -> int:
    """Return a batch size for forward passes without gradients; on a GPU, one whose activations fit `GPU_BYTES`.

    Args:
        forward: The forward pass, called with batches of `samples`.
        samples: The split.
        cpu: The batch size on a CPU.
        most: The largest batch size on a GPU.
    """
    if samples.device.type != "cuda":
        return cpu
    tried = samples.batch(torch.arange(min(TRIED, len(samples))))
    forward(tried)  # the first call also allocates workspaces that stay
    before = torch.cuda.memory_allocated(samples.device)
    torch.cuda.reset_peak_memory_stats(samples.device)
    forward(tried)
    taken = torch.cuda.max_memory_allocated(samples.device) - before + tried.nbytes
    return max(1, min(most, int(GPU_BYTES * len(tried) / taken)))
