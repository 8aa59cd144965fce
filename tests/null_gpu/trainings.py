"""Small sweeps on the null GPU, and what each of their training steps calls."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import null_cuda
import torch

from kdsweep.config.spec import SweepSpec
from kdsweep.tasks.image import splits
from kdsweep.training import trainer
from kdsweep.training.trainer import Training
from kdsweep.worker import gpu
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BATCH = 8
SMALL: dict[str, Any] = {
    "name": "small",
    "dataset": {"name": "mnist_mini", "subset": 8 * BATCH, "val_fraction": 0.5},
    "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
    "student": {"model": "mnist_student"},
    "space": {"method": ["kd", "none"], "width": 0.25},
    "train": {"epochs": 3, "batch_size": BATCH, "precision": "float32"},
}


def ignore_values() -> None:
    """Replace the checks for finite numbers: no kernel runs, so losses and metrics are garbage."""
    trainer.math = SimpleNamespace(isfinite=lambda value: True)  # type: ignore[attr-defined]
    # The warning about reviewkd, whose only such operation a test names.
    warnings.filterwarnings("ignore", ".*does not have a deterministic implementation")


def opened(root: str | Path, sections: Mapping[str, Any] = SMALL, device: torch.device = CPU) -> Workbench:
    """Prepare a sweep on a device, by default the CPU, where its teacher can be judged, and open it on the GPU."""
    ignore_values()
    gpu.set_up()
    spec = SweepSpec.model_validate({**sections, "storage": str(root)})
    data = splits.prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    provide_teacher(spec, spec.sweep_dir, data, device, lambda metrics: None)
    return Workbench.of(spec, spec.sweep_dir, data, GPU)


def begun(bench: Workbench, **config: Any) -> Training:
    """Create a run; its state file does not exist."""
    method = config.setdefault("method", "none")
    shared = {"width": bench.spec.search_space.widest, "lr": 1e-3} | ({"alpha": 0.5} if method != "none" else {})
    return bench.training(shared | config, 0, Path("/nonexistent"))


def calls_of_steps(training: Training) -> list[Counter[str]]:
    """Train an epoch and return what each step called, from the end of the previous step to its own end."""
    steps: list[Counter[str]] = []
    last: Counter[str] = Counter()
    optimizer = training._optimizer
    step = optimizer.step

    def watched() -> None:
        nonlocal last
        step()
        now = Counter(null_cuda.counts())
        steps.append(now - last)
        last = now

    optimizer.step = watched  # type: ignore[method-assign]
    null_cuda.reset()
    training.run_epoch()
    optimizer.step = step  # type: ignore[method-assign]
    return steps
