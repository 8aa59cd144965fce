"""What was measured of the machine before a search, as it is kept with the sweep."""

from __future__ import annotations

import json
from dataclasses import dataclass

from kdsweep.storage.paths import SweepDir

# A process holds a CUDA context, and kernels their workspace, beside what PyTorch counts.
CONTEXT_BYTES = 600e6
MARGIN = 0.9


@dataclass(frozen=True)
class Probe:
    """What was measured with the widest student.

    Attributes:
        precision: Of trials whose precision is `auto`.
        step_ms: Milliseconds a step, by precision; empty where there was no choice.
        trial_bytes: GPU memory of the most demanding method's trial, its data and teacher outputs included.
        gpu_bytes: Memory of the GPU; 0 on CPUs.
    """

    precision: str
    step_ms: dict[str, float]
    trial_bytes: int = 0
    gpu_bytes: int = 0

    @property
    def trials_per_gpu(self) -> int:
        """How many trials fit on a GPU at a time, with a margin."""
        if not self.gpu_bytes:
            return 1
        return max(1, int(MARGIN * self.gpu_bytes / (self.trial_bytes + CONTEXT_BYTES)))


def stored(sweep: SweepDir) -> Probe | None:
    """What was measured for the sweep before, if anything."""
    try:
        return Probe(**json.loads(sweep.probe.read_text()))
    except (OSError, ValueError, TypeError):
        return None
