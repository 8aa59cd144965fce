"""Measurements of the machine, stored with the sweep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdsweep.storage.paths import SweepDir
from kdsweep.training.section import MOST_TOGETHER

# CUDA context and kernel workspaces of a process, which PyTorch does not count.
CONTEXT_BYTES = 600e6
MARGIN = 0.9
# A cohort must be faster than a smaller one by more than timing noise.
FASTER = 1.1


@dataclass(frozen=True)
class Pace:
    """How fast students of one shape train in cohorts.

    Attributes:
        student: Label of the student; empty if there is only one.
        width: Its width.
        step_ms: Milliseconds per step of one trial, by the number of trials that train as one, in ascending order.
    """

    student: str
    width: float
    step_ms: dict[str, float]

    @property
    def fastest(self) -> int:
        """Number of trials in the cohort that takes the least time per trial."""
        chosen, least = 1, self.step_ms["1"]
        for size, milliseconds in self.step_ms.items():
            if FASTER * milliseconds < least:
                chosen, least = int(size), milliseconds
        return chosen


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
        paces: The speed of cohorts; None if `train.cohort` was not `auto`.
    """

    precision: str
    step_ms: dict[str, float]
    trial_bytes: int = 0
    gpu_bytes: int = 0
    gpu: str = ""
    paces: Sequence[Pace] | None = None

    def lanes_per_gpu(self, cohort: int) -> int:
        """Return how many cohorts of this many trials fit on a GPU at the same time, with a margin."""
        if not self.gpu_bytes:
            return 1
        # A cohort takes at most what its trials take one by one.
        return max(1, int(MARGIN * self.gpu_bytes / (cohort * self.trial_bytes + CONTEXT_BYTES)))

    @property
    def most_at_once(self) -> int:
        """Largest number of trials whose cohort fits into a GPU's memory; on a CPU that of all cohorts."""
        if not self.trial_bytes:
            return MOST_TOGETHER
        return max(1, int((MARGIN * self.gpu_bytes - CONTEXT_BYTES) / self.trial_bytes))

    def cohort(self, student: str, width: float, most: int) -> int:
        """Return the fastest number of trials in a cohort of this student, at most `most`.

        A width that was not measured counts as the next larger one: the narrower the student, the more a cohort gains.
        """
        paces = [pace for pace in self.paces or () if pace.student == student]
        wider = [pace for pace in paces if pace.width >= width] or paces[-1:]
        return min(most, min(wider, key=lambda pace: pace.width).fastest) if wider else 1


def stored(sweep: SweepDir) -> Probe | None:
    """Return the measurements stored with a sweep, if there are any."""
    return read(sweep.probe)


def read(path: Path) -> Probe | None:
    """Return the measurements in a file, or None if it is missing or damaged."""
    try:
        found = json.loads(path.read_text())
        paces = found.pop("paces", None)
        return Probe(**found, paces=None if paces is None else [Pace(**pace) for pace in paces])
    except (OSError, ValueError, TypeError, AttributeError):
        return None
