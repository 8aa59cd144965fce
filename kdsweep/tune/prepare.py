"""What comes before the search: the teacher, its outputs, and a look at what the machine does well."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import ray
import torch

from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.registry import import_from
from kdsweep.storage.jsonl import LineLog, read_lines
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks.image.splits import PreparedData
from kdsweep.teacher import build as teachers
from kdsweep.teacher.build import TeacherCard
from kdsweep.terminal.progress import Progress
from kdsweep.tune.cluster import Share
from kdsweep.tune.lease import leased_device
from kdsweep.worker import probe, process
from kdsweep.worker.capacity import Probe
from kdsweep.worker.place import WorkerPlace
from kdsweep.worker.workbench import Workbench, provide_teacher

Prepared = tuple[TeacherCard, Probe]


def prepare(
    spec: SweepSpec, sweep: SweepDir, data: PreparedData, part: Share, remote: bool, progress: Progress
) -> Prepared:
    """Have the teacher, its outputs and the probe ready in the sweep's directory.

    Args:
        spec: The sweep.
        sweep: Its directory.
        data: Its data.
        part: What a trial takes of the cluster.
        remote: Whether the cluster may be elsewhere; then a node of it does the work.
        progress: Hears of it.
    """
    epochs = spec.teacher.train.epochs
    known = teachers.stored(spec, data, sweep)
    origin = "from the store" if known else spec.teacher.checkpoint or f"training {epochs} epochs"
    progress.phase("teacher", f"{spec.teacher.model}, {origin}")

    def on_epoch(done: int, accuracy: float) -> None:
        progress.counted("teacher", done, epochs, f"epochs, val accuracy {accuracy:.2%}")

    if remote or part.gpus:
        card, measured = _remotely(spec, sweep, data, part, on_epoch)
    else:
        with process.lent(os.cpu_count() or 1):
            card, measured = _here(
                spec, sweep, data, torch.device("cpu"), lambda m: on_epoch(int(m["epoch"]), m["val_accuracy"])
            )
    progress.phase(
        "teacher", f"val accuracy {card.val_accuracy:.2%}, {card.parameters:,} parameters, {card.size_mb:.3f} MB"
    )
    if measured.step_ms:
        steps = ", ".join(f"{name} {milliseconds:g}" for name, milliseconds in measured.step_ms.items())
        progress.phase("probe", f"{measured.precision} for the students (milliseconds a step: {steps})")
    return card, measured


def place_of(sweep: SweepDir, data: PreparedData) -> WorkerPlace:
    """Where a worker finds the sweep, its data and the user's own code."""
    return WorkerPlace(sweep, data.root, Path.cwd())


def _here(
    spec: SweepSpec,
    sweep: SweepDir,
    data: PreparedData,
    device: torch.device,
    on_epoch: Callable[[dict[str, float]], None],
) -> Prepared:
    card = provide_teacher(spec, sweep, data, device, on_epoch)
    torch.set_num_threads(spec.resources.cpus_per_trial)
    return card, probe.provide(spec, sweep, Workbench.of(spec, sweep, data, device))


def _remotely(
    spec: SweepSpec, sweep: SweepDir, data: PreparedData, part: Share, on_epoch: Callable[[int, float], None]
) -> Prepared:
    sweep.teacher_epochs.unlink(missing_ok=True)
    work = ray.remote(num_cpus=part.cpus, num_gpus=1 if part.gpus else 0, max_retries=3)(_in_worker)
    task = work.remote(place_of(sweep, data))
    seen = 0
    while True:
        ready, _ = ray.wait([task], timeout=0.5)
        lines = list(read_lines(sweep.teacher_epochs))
        if len(lines) > seen:
            seen = len(lines)
            on_epoch(int(lines[-1]["epoch"]), float(lines[-1]["val_accuracy"]))
        if ready:
            prepared: Prepared = ray.get(task)
            return prepared


def _in_worker(place: WorkerPlace) -> Prepared:
    import_from(str(place.code))
    sweep = place.sweep
    spec = read_spec(sweep)
    device = leased_device()
    process.set_up(spec.resources.cpus_per_trial)
    sweep.teacher.mkdir(parents=True, exist_ok=True)
    log = LineLog(sweep.teacher_epochs)
    try:
        return _here(spec, sweep, PreparedData.load(place.data), device, log.append)
    finally:
        log.close()
