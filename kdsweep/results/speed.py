"""The speed and memory of an exported student on the present machine."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsweep import models
from kdsweep.errors import InputError
from kdsweep.lazy import torch
from kdsweep.results.student import load_student
from kdsweep.results.student_config import read_config
from kdsweep.storage.environment import processor
from kdsweep.storage.fetched import local_copy
from kdsweep.storage.places import Place
from kdsweep.worker.latency import BATCH, measured

MOST_SECONDS = 3.0


def within_noise(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the interquartile ranges of two latencies overlap, so that their difference may be noise.

    Args:
        one: latency_ms and latency_iqr_ms (NaN or missing: unknown, taken as 0) of a student or the teacher.
        other: The same.
    """
    spreads = [float(row.get("latency_iqr_ms", 0.0)) for row in (one, other)]
    spread = sum(value for value in spreads if not math.isnan(value)) / 2
    return abs(float(one["latency_ms"]) - float(other["latency_ms"])) <= spread


def student_speed(
    place: str | Path | Place, device: str = "cpu", threads: int = 0, *, trust_code: bool = False
) -> dict[str, Any]:
    """Measure a student, its normalisation included, on random samples.

    Args:
        place: The student's folder, as for `load_student`.
        device: A PyTorch device.
        threads: Number of threads; 0 leaves PyTorch's default.
        trust_code: As for `load_student`.

    Returns:
        student, machine, device, threads, parameters, flops (for one sample), latency_ms and latency_iqr_ms (median and
        interquartile range for one sample), batch_ms and batch_iqr_ms (the same for 64), throughput (samples per second
        in batches of 64) and activation_mb (peak for one sample).

    Raises:
        InputError: If the folder is not an exported student, or there is no such device or number of cores.
    """
    folder = local_copy(place, "student")
    config = read_config(folder)
    where = _device(device)
    if threads > (most := os.cpu_count() or 1):
        raise InputError(
            f"--threads: found {threads}; accepted: 1 to {most}, the number of cores, or 0 for PyTorch's default"
        )
    if threads:
        torch.set_num_threads(threads)
    student = load_student(folder, trust_code=trust_code).requires_grad_(False).to(where)
    samples = config.input_spec.example(BATCH, where)
    if samples.is_floating_point():
        samples.uniform_(generator=torch.Generator(where).manual_seed(0))
    if samples.dim() == 4:  # as in training and evaluation
        student = student.to(memory_format=torch.channels_last)
        samples = samples.contiguous(memory_format=torch.channels_last)
    found = measured(student, samples, most_seconds=MOST_SECONDS)
    return {
        "student": str(place),
        "machine": torch.cuda.get_device_name(where) if where.type == "cuda" else processor(),
        "device": str(where),
        "threads": found["threads"],
        "parameters": models.count_parameters(student),
        "flops": models.count_flops(student, samples[:1]),
        **{name: found[name] for name in ("latency_ms", "latency_iqr_ms", "batch_ms", "batch_iqr_ms")},
        "throughput": found["throughput"],
        "activation_mb": found["activation_mb"],
    }


def _device(name: str) -> torch.device:
    """Return a CPU or GPU that can be used.

    Raises:
        InputError: If there is no such device.
    """
    accepted = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    accepted += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if name not in accepted:
        raise InputError(f"--device: found {name!r}; accepted: {', '.join(accepted)}")
    return torch.device(name)
