"""What a section of `benchmarks/gpu.py` gets and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import benches
import sweeps
import torch

from kdsweep.worker import gpu, process
from kdsweep.worker.workbench import Workbench

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LONG = 1000  # epochs of runs that are never trained to their end


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Attributes:
        folder: The images and the teacher of `images.provide`; the sweeps go here, too.
        quick: Whether to run small sizes, which only show that everything runs.
        ray: Whether Ray may be used.
        data: An image folder for the section `sweep`; None generates images.
        repeats: Number of repeats of the timings.
    """

    folder: Path
    quick: bool = False
    ray: bool = True
    data: Path | None = None
    repeats: int = 3


@dataclass
class Found:
    """What a section has found.

    Attributes:
        title: Title of the table.
        table: The rows, with equal keys.
        figures: The same as numbers, and details.
        failures: Checks that failed, one line each.
        notes: What was left out, and why.
    """

    title: str
    table: list[dict[str, object]]
    figures: dict[str, Any]
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def bench(
    setting: Setting, name: str, student: str, width: float = 1.0, device: torch.device = GPU, **sections: Any
) -> Workbench:
    """Open a sweep over the images of the section's folder on a device, with the process set up as a worker's is.

    Args:
        setting: How to measure.
        name: Name of the sweep.
        student: The student.
        width: Its width.
        device: Where it trains.
        sections: Keys of further sections of the sweep file.
    """
    process.set_up(threads=torch.get_num_threads())
    gpu.set_up()
    values = sweeps.tutorial(setting.folder, setting.folder / "runs", name, epochs=LONG)
    values["train"]["precision"] = "float32"
    values["student"] = {"model": student}
    values["space"] = {**values["space"], "width": width}
    return benches.opened(merged(values, sections), setting.folder, device)


def merged(values: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sweep file with the keys of some sections replaced."""
    return {**values, **{name: {**values.get(name, {}), **keys} for name, keys in sections.items()}}
