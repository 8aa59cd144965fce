"""Measurements of the machine, stored with the sweep."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from kdsweep.storage.paths import SweepDir

# CUDA context and kernel workspaces of a process, which PyTorch does not count.
CONTEXT_BYTES = 600e6
MARGIN = 0.9


@dataclass(frozen=True)
class Probe:
    """Measurements with the widest student.

    Attributes:
        precision: Precision of trials that use `auto`.
        step_ms: Milliseconds per step, by precision; empty if only one precision was possible.
        trial_bytes: GPU memory of training and evaluating the largest trial that the space can draw, including data
            and teacher outputs.
        gpu_bytes: Memory of the GPU; 0 on a CPU.
        gpu: Name of the GPU; empty on a CPU.
    """

    precision: str
    step_ms: dict[str, float]
    trial_bytes: int = 0
    gpu_bytes: int = 0
    gpu: str = ""

    @property
    def trials_per_gpu(self) -> int:
        """Number of concurrent trials that fit on a GPU, with a margin."""
        if not self.gpu_bytes:
            return 1
        return max(1, int(MARGIN * self.gpu_bytes / (self.trial_bytes + CONTEXT_BYTES)))


def stored(sweep: SweepDir) -> Probe | None:
    """Return the measurements stored with a sweep, if there are any."""
    return read(sweep.probe)


def read(path: Path) -> Probe | None:
    """Return the measurements in a file, or None if it is missing or damaged."""
    try:
        return Probe(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
