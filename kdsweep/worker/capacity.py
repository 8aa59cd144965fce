"""Measurements of the machine, stored with the sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdsweep.storage.paths import SweepDir
from kdsweep.training.section import MOST_TOGETHER

# CUDA context and kernel workspaces of a process, which PyTorch does not count.
CONTEXT_BYTES = 600e6
MARGIN = 0.9
# A larger cohort, or more processes on a GPU, must be faster by more than timing noise.
FASTER = 1.1


def fastest(times: Mapping[str, float]) -> int:
    """Return the number with the least time. Numbers are in ascending order, and a larger one must be worth it."""
    chosen = next(iter(times))
    for number, taken in times.items():
        if FASTER * taken < times[chosen]:
            chosen = number
    return int(chosen)


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
        return fastest(self.step_ms)


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
        steps_per_second: Steps of trials per second on a GPU, by the number of processes that train on it at the same
            time; empty if not measured.
        cohort_setting: `train.cohort` as it was measured on a GPU.
        captured: `train.capture`, likewise.
    """

    precision: str
    step_ms: dict[str, float]
    trial_bytes: int = 0
    gpu_bytes: int = 0
    gpu: str = ""
    paces: Sequence[Pace] | None = None
    steps_per_second: dict[str, float] = field(default_factory=dict)
    cohort_setting: int | str = 1
    captured: bool = False

    def lanes_per_gpu(self, cohort: int) -> int:
        """Return how many cohorts of this many trials train on a GPU at the same time: as many as fit and help."""
        fit, rates = self.fitting(cohort), self.steps_per_second
        return min(fit, fastest({number: 1 / rate for number, rate in rates.items()})) if rates else fit

    def fitting(self, cohort: int) -> int:
        """Return how many cohorts of this many trials fit into a GPU's memory at the same time, with a margin."""
        if not self.gpu_bytes:
            return 1
        # A cohort takes at most what its trials take one by one.
        return max(1, int(MARGIN * self.gpu_bytes / (cohort * self.trial_bytes + CONTEXT_BYTES)))

    def cohort_of(self, setting: int | str) -> int:
        """Return how many trials a lane may train at once with this `train.cohort`, for which it needs memory."""
        if isinstance(setting, int):
            return setting
        return min(self.most_at_once, max((pace.fastest for pace in self.paces or ()), default=1))

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
