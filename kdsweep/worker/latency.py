"""The latency of a student: the time for one sample, measured once per architecture of a sweep."""

from __future__ import annotations

import statistics
import time

from filelock import FileLock

from kdsweep.errors import SweepDirError
from kdsweep.lazy import nn, torch
from kdsweep.seeds import digest_of
from kdsweep.storage.files import read_json, write_json
from kdsweep.storage.paths import SweepDir

WARM_UP, PASSES, MOST_SECONDS = 10, 100, 2.0


def latency_ms(sweep: SweepDir, model: nn.Module, sample: torch.Tensor) -> float:
    """Return the median time of a forward pass in eval mode, in milliseconds.

    Equal students have equal latencies: the first worker that meets an architecture measures it and stores the value in
    the sweep directory. Weights do not matter.

    Args:
        sweep: The sweep's directory.
        model: The student, with its inference head if it has one.
        sample: Input of one sample, [1, ...], on the model's device.
    """
    file = sweep.latency / f"{_architecture(model, sample)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        try:
            return float(read_json(file)["latency_ms"])
        except (SweepDirError, KeyError, TypeError, ValueError):  # not measured yet, or damaged
            found = measure_ms(model, sample)
            write_json(file, {"latency_ms": found, "threads": torch.get_num_threads(), "device": sample.device.type})
            return found


def measure_ms(model: nn.Module, sample: torch.Tensor) -> float:
    """Median of up to 100 forward passes within about 2 seconds, after a warm-up; at least one pass counts."""
    model.eval()
    times: list[float] = []
    began = time.perf_counter()
    with torch.inference_mode():
        for number in range(WARM_UP + PASSES):
            started = time.perf_counter()
            model(sample)
            if sample.is_cuda:
                torch.cuda.synchronize(sample.device)
            ended = time.perf_counter()
            if number >= WARM_UP or ended - began > MOST_SECONDS:
                times.append(1e3 * (ended - started))
            if times and ended - began > MOST_SECONDS:
                break
    return round(statistics.median(times), 6)


def _architecture(model: nn.Module, sample: torch.Tensor) -> str:
    """Digest of everything that the time of a forward pass depends on, except the machine."""
    shapes = {name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in model.state_dict().items()}
    where = [sample.device.type, torch.get_num_threads()]
    return digest_of({"modules": str(model), "shapes": shapes, "sample": list(sample.shape), "where": where})[:16]
