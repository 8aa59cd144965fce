"""What a training step asks of the GPU: kernels launched, and waits of the host, as torch.profiler counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import benches
from torch.profiler import ProfilerActivity, profile

from on_gpu.section import Found, Setting, bench

LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemset")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
TOGETHER = 16
FEW, MORE = 4, 12  # steps of the two epochs whose difference is that of the steps alone


def measure(setting: Setting) -> Found:
    """Count the calls of an epoch of few steps and of more."""
    found = Found("calls per step of kd on lightnn, batch 128, teacher's outputs stored", [], {})
    opened = bench(setting, "launches", "lightnn")
    for precision in ("float32", "bfloat16"):
        for name, trials, made in runs(opened, TOGETHER, precision):
            few, more = (after_first_epoch(made(steps)) for steps in (FEW, MORE))
            launches, waits = (
                (starting(more, kind) - starting(few, kind)) / (MORE - FEW) for kind in (LAUNCHES, WAITS)
            )
            figures = {"launches": launches, "launches_per_trial": launches / trials, "waits": waits, "calls": more}
            found.figures[f"{name}, {precision}"] = figures
            found.table.append({
                "run": name, "precision": precision, "launches": f"{launches:.1f}",
                "launches for each trial": f"{launches / trials:.1f}", "waits": f"{waits:.1f}",
            })  # fmt: skip
            if waits:
                found.failures.append(f"{name}, {precision}: the host waits for the GPU {waits:.1f} times per step")
    return found


def runs(opened: Any, together: int, precision: str) -> Iterator[tuple[str, int, Callable[[int], Any]]]:
    """Yield the kinds of runs: name, number of trials, and what makes the run, given the steps of an epoch."""
    configs = benches.members(together, width=1.0, precision=precision)
    yield "single", 1, lambda steps: benches.training(opened, configs[0], steps)
    yield "captured", 1, lambda steps: benches.training(opened, {**configs[0], "capture": True}, steps)
    yield f"cohort of {together}", together, lambda steps: benches.cohort(opened, configs, steps)


def after_first_epoch(run: Any) -> Counter[str]:
    """Return the calls of a run's second epoch; the first one loads libraries."""
    run.run_epoch()
    return calls(run.run_epoch)


def calls(run: Callable[[], object]) -> Counter[str]:
    """Return how often a function calls each function of CUDA."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        run()
    return Counter({event.key: event.count for event in profiled.key_averages() if event.key.startswith("cu")})


def starting(counted: Counter[str], kinds: tuple[str, ...]) -> int:
    """Return how many calls have names that start with one of these."""
    return sum(count for name, count in counted.items() if name.startswith(kinds))
