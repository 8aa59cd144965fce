"""What comes before the search: the teacher, its outputs, and a look at what the machine does well."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import ray
import torch

from kdsweep import tasks
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.registry import import_from
from kdsweep.storage.jsonl import LineLog, read_lines
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks.metrics import shown
from kdsweep.teacher import build as teachers
from kdsweep.teacher.build import TeacherCard
from kdsweep.terminal.progress import Progress
from kdsweep.tune.cluster import Share
from kdsweep.worker import probe, process
from kdsweep.worker.probe import Probe
from kdsweep.worker.workbench import open_workbench, provide_teacher

Prepared = tuple[TeacherCard, Probe]


def prepare(
    spec: SweepSpec, sweep: SweepDir, data: tasks.Prepared, part: Share, remote: bool, progress: Progress
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

    column = spec.goal.column
    called = column.replace("_", " ")

    def on_epoch(metrics: Mapping[str, float]) -> None:
        progress.counted("teacher", int(metrics["epoch"]), epochs, f"epochs, {called} {shown(column, metrics[column])}")

    if remote or part.gpus:
        card, measured = _remotely(spec, sweep, data, part, on_epoch)
    else:
        with process.lent(os.cpu_count() or 1):
            card, measured = _here(spec, sweep, data, torch.device("cpu"), on_epoch)
    progress.phase(
        "teacher",
        f"{called} {shown(column, card.measured[column])}, {card.parameters:,} parameters, {card.size_mb:.3f} MB",
    )
    if measured.step_ms:
        steps = ", ".join(f"{name} {milliseconds:g}" for name, milliseconds in measured.step_ms.items())
        progress.phase("probe", f"{measured.precision} for the students (milliseconds a step: {steps})")
    return card, measured


def places(sweep: SweepDir, data: tasks.Prepared) -> dict[str, str]:
    """Where a worker finds the sweep, its data and the user's own code."""
    return {"sweep": str(sweep.root), "data": str(data.root), "code": str(Path.cwd())}


def _here(
    spec: SweepSpec,
    sweep: SweepDir,
    data: tasks.Prepared,
    device: torch.device,
    on_epoch: Callable[[dict[str, float]], None],
) -> Prepared:
    card = provide_teacher(spec, sweep, data, device, on_epoch)
    torch.set_num_threads(spec.resources.cpus_per_trial)
    return card, probe.provide(spec, sweep, open_workbench(spec, sweep, data, device))


def _remotely(
    spec: SweepSpec, sweep: SweepDir, data: tasks.Prepared, part: Share, on_epoch: Callable[[Mapping[str, float]], None]
) -> Prepared:
    sweep.teacher_epochs.unlink(missing_ok=True)
    work = ray.remote(num_cpus=part.cpus, num_gpus=1 if part.gpus else 0, max_retries=3)(_in_worker)
    task = work.remote(places(sweep, data))
    seen = 0
    while True:
        ready, _ = ray.wait([task], timeout=0.5)
        lines = list(read_lines(sweep.teacher_epochs))
        if len(lines) > seen:
            seen = len(lines)
            on_epoch(lines[-1])
        if ready:
            prepared: Prepared = ray.get(task)
            return prepared


def _in_worker(places: dict[str, str]) -> Prepared:
    import_from(places["code"])
    sweep = SweepDir(Path(places["sweep"]))
    spec = read_spec(sweep)
    process.set_up(spec.resources.cpus_per_trial)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sweep.teacher.mkdir(parents=True, exist_ok=True)
    log = LineLog(sweep.teacher_epochs)
    try:
        return _here(spec, sweep, tasks.of(spec.dataset).load(Path(places["data"])), device, log.append)
    finally:
        log.close()
