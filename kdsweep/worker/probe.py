"""Measures speed and memory with the sweep's students, once before the search.

The result is stored with the sweep and used by all trials, also after `resume`, so that results are reproducible. Later
sweeps of the same student on the same kind of machine reuse it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Any

from kdsweep import models
from kdsweep.config.spec import SweepSpec
from kdsweep.distributions import Config
from kdsweep.errors import KdsweepError, SweepError
from kdsweep.lazy import torch
from kdsweep.registry import is_user_object
from kdsweep.search.space import extent
from kdsweep.seeds import digest_of
from kdsweep.storage.environment import processor
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Samples
from kdsweep.training.batches import GPU_BYTES, MOST
from kdsweep.worker import gpu
from kdsweep.worker.capacity import Probe, read, stored
from kdsweep.worker.crowds import measured_crowds
from kdsweep.worker.paces import measured_paces, stackable
from kdsweep.worker.short_runs import SECONDS, short, steps_of, timed
from kdsweep.worker.workbench import Workbench

# bfloat16 must be faster by more than timing noise, or the same sweep could choose differently each time.
WORTH = 1.2


def provide(spec: SweepSpec, sweep: SweepDir, bench: Workbench) -> Probe:
    """Return the sweep's own measurements, those of an earlier sweep if they apply, or measure now."""
    found = stored(sweep)
    if found is not None and _applies(found, spec, bench):
        return found
    known = found
    own = any(is_user_object(student.model) for student in spec.students.values())
    teachers = [spec.of_teacher(name).teacher for name in spec.teacher_names]
    if own or any(is_user_object(teacher.model) for teacher in teachers):  # user code may change
        found = measure(spec, bench)
    else:
        shared = sweep.store.probe(digest_of(_conditions(spec, bench))[:16])
        found = read(shared)
        if found is None:
            found = measure(spec, bench)
            if found.step_ms or found.trial_bytes or found.paces:
                shared.parent.mkdir(parents=True, exist_ok=True)
                write_json(shared, asdict(found))
    if known is not None:  # the sweep goes on with another device: trials keep their precision, memory is new
        found = replace(found, precision=known.precision, step_ms=known.step_ms)
    write_json(sweep.probe, asdict(found))
    return found


def _applies(found: Probe, spec: SweepSpec, bench: Workbench) -> bool:
    """Whether the sweep's measurements are still those of its device and settings, which `resume` may change."""
    if found.gpu != _gpu(bench.device) or (found.paces is None and spec.train.cohort == "auto"):
        return False
    return not found.gpu or (found.cohort_setting, found.captured) == (spec.train.cohort, spec.train.capture)


def measure(spec: SweepSpec, bench: Workbench) -> Probe:
    """Measure a few training steps on the workbench's device, with this process's threads."""
    largest = _largest(spec, bench)
    plain = largest[0]
    choices = _choices(spec, bench.device)
    # A student that cannot be trained fails later, as a trial with an error, not here.
    try:
        step_ms = _step_ms(spec, bench, plain, choices) if len(choices) > 1 else {}
    except (KdsweepError, RuntimeError):
        if gpu.fault():
            raise  # another process measures again
        return Probe("float32", {})
    faster = bool(step_ms) and step_ms["float32"] > WORTH * step_ms["bfloat16"]
    precision = "bfloat16" if faster or choices == ("bfloat16",) else "float32"
    fixed: Config = {"precision": precision, **_most_teachers(spec)}
    paces = measured_paces(spec, bench, [{**one, **fixed} for one in largest]) if spec.train.cohort == "auto" else None
    if bench.device.type != "cuda":
        return Probe(precision, step_ms, paces=paces)
    total = torch.cuda.get_device_properties(bench.device).total_memory
    batch = GPU_BYTES // bench.val.batch(torch.arange(1)).nbytes
    val = bench.val.first(max(1, min(MOST, int(batch))))  # a whole batch of evaluation
    methods = spec.search_space.methods()
    trials = [{**one, **fixed, "method": name} for one in largest for name in methods]
    taken = max(_gpu_bytes(spec, bench, val, trial) for trial in trials)
    found = Probe(
        precision, step_ms, min(taken, total), total, _gpu(bench.device), paces,
        cohort_setting=spec.train.cohort, captured=spec.train.capture,
    )  # fmt: skip
    if spec.resources.gpus_per_trial != "auto":
        return found
    gpu.release()
    config = stackable(spec, {**plain, **fixed}) or {**plain, **fixed}
    return replace(found, steps_per_second=measured_crowds(spec, bench, config, found))


def _largest(spec: SweepSpec, bench: Workbench) -> list[Config]:
    """Return the plain configurations of the widest students with the largest batches, most parameters first."""
    batch_size = spec.search_space.largest("batch_size")
    fixed: Config = {"method": "none", "lr": spec.train.lr}
    if batch_size is not None:
        fixed["batch_size"] = batch_size
    widest: list[tuple[int, Config]] = []
    for label, widths in spec.search_space.widths().items():
        student, width = spec.students[label], max(extent(widths))
        own: Config = {"student": label} if label else {}
        shape, classes = bench.data.input_spec, bench.data.num_classes
        size = models.count(student.model, shape, classes, width, **student.options)[0] if label else 0
        widest.append((size, {**own, "width": width, **fixed}))
    return [config for _, config in sorted(widest, key=lambda one: -one[0])]


def _most_teachers(spec: SweepSpec) -> Config:
    """Return the choice of the most teachers at a time, of methods on logits; empty with one teacher."""
    teacher = spec.search_space.shared.get("teacher")
    return {"teacher": max(map(str, teacher.every()), key=lambda name: name.count("+"))} if teacher else {}


def _gpu(device: torch.device) -> str:
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else ""


def _conditions(spec: SweepSpec, bench: Workbench) -> dict[str, Any]:
    """Return everything that the measurements depend on."""
    cuda = bench.device.type == "cuda"
    sections = [spec.of_teacher(name).teacher for name in spec.teacher_names]
    dumped = [section.model_dump(exclude=set() if section.student else {"student"}) for section in sections]
    teachers: Any = dumped if spec.teachers else dumped[0]  # as earlier versions did
    methods, cohort = spec.search_space.methods(), spec.train.cohort
    # What is measured only for cohorts, and only on GPUs. The numbers count versions of the measurement.
    cohorts: dict[str, Any] = {"cohorts": [1, methods]} if cohort == "auto" else {}
    crowds = spec.resources.gpus_per_trial == "auto" and os.cpu_count()  # how many processes can be measured
    on_gpu = [4, spec.resources.cpus_per_trial, crowds, cohort, methods, teachers, bench.data.digest]
    left_out = {"epochs", "cohort"} | (set() if spec.train.capture else {"capture"})  # as before there was such a key
    return cohorts | {
        "machine": torch.cuda.get_device_name(bench.device) if cuda else processor(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "student": _students(spec, bench),
        "data": [bench.data.input_spec.shape, bench.data.num_classes, *bench.data.input_spec.facts.values()],
        "train": spec.train.model_dump(exclude=left_out),
        "memory": on_gpu if cuda else [],
    }


def _students(spec: SweepSpec, bench: Workbench) -> list[Any]:
    """Return the students with their largest configurations; as earlier versions did if there is one."""
    largest = _largest(spec, bench)
    return [spec.student.model_dump(), largest[0]] if spec.student else largest


def _choices(spec: SweepSpec, device: torch.device) -> tuple[str, ...]:
    """Return the candidate precisions."""
    if spec.train.precision != "auto":
        return (spec.train.precision,)
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ("float32", "bfloat16") if has_bfloat16 else ("float32",)


def _step_ms(spec: SweepSpec, bench: Workbench, config: Config, choices: tuple[str, ...]) -> dict[str, float]:
    val = bench.val.first(2)
    trainings = {choice: short(spec, bench, {**config, "precision": choice}, val, teacher=False) for choice in choices}
    seconds = {choice: [timed(training)] for choice, training in trainings.items()}
    rounds = min(10, max(2, int(SECONDS / max(first for (first,) in seconds.values()))))
    for _ in range(rounds):  # alternate, so that changes in machine load affect both
        for choice, training in trainings.items():
            seconds[choice].append(timed(training))
    steps = steps_of(spec, bench, config)
    return {choice: round(1000 * min(times[1:]) / steps, 3) for choice, times in seconds.items()}


def _gpu_bytes(spec: SweepSpec, bench: Workbench, val: Samples, config: Config) -> int:
    """Return the GPU memory that a method takes in training and evaluation.

    It is 0 if the method cannot run (its trials then fail), and all there is if it does not fit.
    Other parameters have their defaults. What earlier work of this process has left behind is returned first.

    Raises:
        SweepError: If this process can use the GPU no more. Another one measures again.
    """
    gpu.release()
    try:
        alpha: Config = {"alpha": 0.5} if config["method"] != "none" else {}
        short(spec, bench, config | alpha, val, teacher=True).run_epoch()
    except (KdsweepError, RuntimeError) as error:
        if fault := gpu.fault():
            raise SweepError(f"method {config['method']} breaks the GPU: {fault}") from None
        return torch.cuda.get_device_properties(bench.device).total_memory if gpu.ran_out_of_memory(error) else 0
    # The peak: PyTorch keeps what is freed. Its own record of the peak is reset by the evaluation.
    return int(torch.cuda.memory_reserved(bench.device))
