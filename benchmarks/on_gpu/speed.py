"""Steps per second of one process: a trial by itself, with captured steps, and cohorts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import benches
import torch
from measure import say, shown, spread

from on_gpu.section import Found, Setting, bench

STUDENTS = (("lightnn", 1.0), ("lightnn", 0.25))
SIZES = (1, 4, 16, 64)


def measure(setting: Setting) -> Found:
    """Time epochs of some steps, after a warm-up epoch; the validation of two images is included."""
    steps, repeats = (2, 1) if setting.quick else (50, setting.repeats)
    found = Found(f"trial-steps per second of kd, batch 128, {repeats} times {steps} steps", [], {})
    for student, width in STUDENTS:
        opened = bench(setting, f"speed-{student}-{width:g}", student, width)
        for precision in ("float32", "bfloat16"):
            alone = 0.0
            for name, trials, made in runs(opened, width, precision, setting.quick):
                say(f"{student}, width {width:g}, {precision}: {name}")
                run = made(steps)
                run.run_epoch()
                rates = spread([trials * steps / seconds(run.run_epoch) for _ in range(repeats)])
                alone = alone or float(rates["median"])  # type: ignore[arg-type]
                ratio = rates["median"] / alone  # type: ignore[operator]
                found.figures[f"{student}, {width:g}, {precision}, {name}"] = {"rate": rates, "ratio": ratio}
                found.table.append({
                    "student": student, "width": f"{width:g}", "precision": precision, "run": name,
                    "trial-steps per second": shown(rates, 0), "times a single run": f"{ratio:.2f}",
                })  # fmt: skip
    return found


def runs(opened: Any, width: float, precision: str, quick: bool) -> Iterator[tuple[str, int, Callable[[int], Any]]]:
    """Yield the kinds of runs: name, number of trials, and what makes the run, given the steps of an epoch."""
    shared = {"width": width, "precision": precision}
    for name, capture in (("single", False), ("captured", True)):
        (config,) = benches.members(1, **shared, capture=capture)
        yield name, 1, lambda steps, config=config: benches.training(opened, config, steps)  # type: ignore[misc]
    for size in SIZES[:2] if quick else SIZES:
        configs = benches.members(size, **shared)
        yield f"cohort of {size}", size, lambda steps, configs=configs: benches.cohort(opened, configs, steps)  # type: ignore[misc]


def seconds(run: Callable[[], object]) -> float:
    """Time a function, with the work that it leaves to the GPU."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started
