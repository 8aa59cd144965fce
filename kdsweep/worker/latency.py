"""The speed of a student: measured once per architecture of a sweep, whatever its weights.

Times depend on the machine. A sweep keeps one measurement per architecture, device type and number of threads, so that
equal students have equal latencies.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from kdsweep import models
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import InputError, SweepDirError
from kdsweep.lazy import nn, torch
from kdsweep.models import InputSpec
from kdsweep.search.space import SearchSpace
from kdsweep.seeds import digest_of
from kdsweep.storage.files import read_json, write_json
from kdsweep.storage.following import fetch
from kdsweep.storage.paths import SweepDir
from kdsweep.words import count_of

if TYPE_CHECKING:
    from torch.utils.benchmark import Timer

WARM_UP, WARM_UP_SECONDS = 10, 0.2
# Of measuring one batch size. It ends when the interquartile range is a tenth of the median, or after MOST_SECONDS.
LEAST_SECONDS, MOST_SECONDS, PRECISION = 0.05, 0.3, 0.1
BATCH = 64  # for the throughput


def latency_ms(sweep: SweepDir, model: nn.Module, sample: torch.Tensor) -> float:
    """Return the median time of a forward pass of one sample in eval mode, in milliseconds.

    The first worker that meets an architecture measures it and stores the value in the sweep directory.

    Args:
        sweep: The sweep's directory.
        model: The student, with its inference head if it has one.
        sample: Input of one sample, [1, ...], on the model's device.
    """
    found = _stored(sweep, model, sample, lambda known: known if "latency_ms" in known else measured(model, sample))
    return float(found["latency_ms"])


def costs(sweep: SweepDir, model: nn.Module, samples: torch.Tensor) -> dict[str, float]:
    """Return latency_ms, latency_iqr_ms, throughput and activation_mb of a student, measured once per architecture.

    Args:
        sweep: The sweep's directory.
        model: The student, with its inference head if it has one.
        samples: Input of 64 samples, [64, ...], on the model's device.
    """

    def complete(known: Mapping[str, Any]) -> Mapping[str, Any]:
        return known if "throughput" in known else measured(model, samples, known)

    found = _stored(sweep, model, samples[:1], complete)
    return {name: float(found[name]) for name in ("latency_ms", "latency_iqr_ms", "throughput", "activation_mb")}


def measured(
    model: nn.Module,
    samples: torch.Tensor,
    known: Mapping[str, Any] | None = None,
    most_seconds: float = MOST_SECONDS,
) -> dict[str, Any]:
    """Measure a model on the device of `samples`, with the present number of threads.

    Args:
        model: The model, on that device.
        samples: [1, ...] measures the latency only; [B, ...] also the throughput in batches of B.
        known: Earlier measurements, which are not repeated.
        most_seconds: Longest time for either batch size, where times vary much.

    Returns:
        latency_ms and latency_iqr_ms (median and interquartile range for one sample), threads and device; for several
        samples also batch, batch_ms, batch_iqr_ms, throughput (samples per second) and activation_mb (for one sample).
    """
    one, found = samples[:1], dict(known or {})
    if "latency_ms" not in found:
        found["latency_ms"], found["latency_iqr_ms"] = time_ms(model, one, most_seconds)
        found |= {"threads": torch.get_num_threads(), "device": samples.device.type}
    if len(samples) > 1:
        found["batch"] = len(samples)
        found["batch_ms"], found["batch_iqr_ms"] = time_ms(model, samples, most_seconds)
        found["throughput"] = 1e3 * len(samples) / found["batch_ms"]
        found["activation_mb"] = models.activation_mb(model, one)
    return found


def time_ms(model: nn.Module, samples: torch.Tensor, most_seconds: float = MOST_SECONDS) -> tuple[float, float]:
    """Median and interquartile range of the time of a forward pass in eval mode, in milliseconds.

    Measured by `torch.utils.benchmark`, which repeats blocks of passes and waits for a GPU to finish.
    """
    model.eval()
    timer = _timer()(
        "model(samples)", globals={"model": model, "samples": samples}, num_threads=torch.get_num_threads()
    )
    with torch.inference_mode():
        spent = 0.0
        for _ in range(WARM_UP):
            spent += timer.timeit(1).median
            if spent > WARM_UP_SECONDS:
                break
        found = timer.adaptive_autorange(PRECISION, min_run_time=LEAST_SECONDS, max_run_time=most_seconds)
    return round(1e3 * found.median, 6), round(1e3 * found.iqr, 6)


def _timer() -> type[Timer]:
    """Import `torch.utils.benchmark.Timer` without the notice of PyTorch's extension builder that there is no GPU."""
    log = logging.getLogger("torch.utils.cpp_extension")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        from torch.utils.benchmark import Timer
    finally:
        log.setLevel(level)
    return Timer


def within_latency(
    spec: SweepSpec, space: SearchSpace, sweep: SweepDir, sample: torch.Tensor, shape: InputSpec, num_classes: int
) -> SearchSpace:
    """Return a search space without the students that, untrained, are slower than the sweep allows.

    Args:
        spec: The sweep.
        space: Its space, within the other constraints.
        sweep: Its directory, which keeps the measurements, so that a resumed sweep has the same space.
        sample: Input of one sample, [1, ...], on the device of the trials.
        shape: Model input of the data set.
        num_classes: Number of classes.

    Raises:
        InputError: If none is left.
    """
    limit, found, students = spec.constraints.latency_ms, dict[tuple[str, float], float](), spec.students

    def fits(label: str, width: float) -> bool:
        student = students[label]
        with torch.random.fork_rng():
            model = models.build(student.model, shape, num_classes, width, **student.options)
        found[label, width] = latency_ms(sweep, model.to(sample.device).to(memory_format=torch.channels_last), sample)
        return found[label, width] <= limit

    kept = space.limit_width(fits)
    if kept is None:
        label, width = fastest = min(found, key=lambda one: found[one] if space.students else one[1])
        where = f"{sample.device.type}, {count_of(torch.get_num_threads(), 'thread')}"
        raise InputError(
            f"constraints.latency_ms: found {limit:g}; accepted: at least {found[fastest]:.3g}, the time of "
            f"{label or students[label].model} of width {width:g} ({where})"
        )
    return kept


def _stored(sweep: SweepDir, model: nn.Module, sample: torch.Tensor, complete: Any) -> Mapping[str, Any]:
    """Return what is stored about an architecture, completed and stored again if something is missing."""
    file = sweep.latency / f"{_architecture(model, sample)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        fetch(file)
        try:
            known = read_json(file)
            float(known.get("latency_ms", 0))
        except (SweepDirError, TypeError, ValueError):  # not measured yet, or damaged
            known = {}
        found: Mapping[str, Any] = complete(known)
        if found is not known:
            write_json(file, found)
    return found


def _architecture(model: nn.Module, sample: torch.Tensor) -> str:
    """Digest of everything that the time of a forward pass depends on, except the machine."""
    shapes = {name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in model.state_dict().items()}
    where = [sample.device.type, torch.get_num_threads()]
    return digest_of({"modules": str(model), "shapes": shapes, "sample": list(sample.shape), "where": where})[:16]
