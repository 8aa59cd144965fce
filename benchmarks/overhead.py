"""Measure the overhead of a sweep: time per trial on warm workers, start-up time, and memory.

Runs one-epoch trials on a few images, first in one slot and then in all. The overhead is the wall time per trial and
slot minus the time that the trial spent on training and validation. Start-up time is split by phase. Memory is the
proportional set size of the worker processes, so shared memory counts once, with one and with two concurrent trials.

    python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import images
import sweeps
from measure import arguments, report, say, shown, spread

START = "KDSWEEP_BENCHMARK_STARTED"
WORKERS = (b"ray::DistillTrial", b"ray::ResourceTrainable")  # Ray's names for an idle and a busy worker


def main() -> None:
    """Run each sweep in its own process and report."""
    parser = arguments(__doc__.splitlines()[0], "overhead")
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--sampler", default="tpe", choices=("tpe", "random"))
    parser.add_argument("--places", type=int, default=len(os.sched_getaffinity(0)), help="concurrent trials")
    parser.add_argument("--sweep", nargs=2, help=argparse.SUPPRESS)  # used when this script calls itself
    options = parser.parse_args()
    if options.sweep:
        print(json.dumps(measured_sweep(options, Path(options.sweep[0]), options.sweep[1])))
        return
    answers: dict[str, list[dict[str, Any]]] = {"tiny, 1 place": [], f"tiny, {options.places} places": []}
    memory: dict[str, list[dict[str, Any]]] = {"memory, 1 place": [], "memory, 2 places": []}
    with tempfile.TemporaryDirectory(prefix="kdsweep-overhead-") as temporary:
        folder = Path(temporary)
        say("preparing the images and the teacher")
        images.provide(folder, None, 5000, 1000)
        for repeat in range(options.repeats):
            for kind, answer in (answers | memory).items():
                say(f"repeat {repeat + 1} of {options.repeats}: {kind}")
                answer.append(in_new_process(folder, f"{kind.replace(', ', '-').replace(' ', '-')}-{repeat}"))
    report_all(options, answers, memory)


def report_all(options: Any, answers: dict[str, list[dict[str, Any]]], memory: dict[str, list[dict[str, Any]]]) -> None:
    """Combine all measurements in one table."""
    figures: dict[str, dict[str, Any]] = {}
    for kind, each in answers.items():
        figures[f"overhead per trial, {kind} (ms)"] = spread([one["trial_ms"] for one in each])
        figures[f"of which driver CPU, {kind} (ms)"] = spread([one["driver_cpu_ms"] for one in each])
    phases = [one["phases"] for one in next(iter(answers.values()))]
    for phase in phases[0]:
        figures[f"start-up, {phase} (s)"] = spread([one[phase] for one in phases])
    one, two = memory.values()
    for kind in ("pss_mb", "private_mb"):
        more = [b[kind] - a[kind] for a, b in zip(one, two, strict=True)]
        figures[f"memory of the second worker, {kind.removesuffix('_mb')} (MB)"] = spread(more)
    figures["memory of a worker that has imported torch and Ray, private (MB)"] = spread([m["torch_mb"] for m in one])
    figures["the same after creating an optimizer, private (MB)"] = spread([m["bare_mb"] for m in one])
    rows = [{"what": name, "measured": shown(figure)} for name, figure in figures.items()]
    report("overhead of a sweep", rows, {"figures": figures}, options.out)


def in_new_process(folder: Path, name: str) -> dict[str, Any]:
    """Run one sweep in a subprocess; return its measurements."""
    command = [sys.executable, __file__, *sys.argv[1:], "--sweep", str(folder), name]
    environment = {**os.environ, START: str(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def measured_sweep(options: Any, folder: Path, name: str) -> dict[str, Any]:
    """Run a sweep and measure it."""
    began = float(os.environ[START])
    import kdsweep
    from kdsweep.tune import driver  # noqa: F401 - the import is part of the start-up
    from kdsweep.tune.cluster import connected

    places = options.places if name.startswith("tiny") and "1-place" not in name else 1
    places = 2 if "2-places" in name else places
    tiny = name.startswith("tiny")
    values = sweeps.tiny(folder, name, options.trials) if tiny else sweeps.tutorial(folder, folder / name, name, 6)
    values["search"] |= {"sampler": options.sampler, "trials": options.trials if tiny else 4 * places}
    values["resources"] = {"max_concurrent": places}
    from watch import Stopwatch

    imported = time.time() - began
    spec = sweeps.spec_of(values, folder)
    checked = time.time() - began
    with connected(None):
        joined = time.time() - began
        watch = Stopwatch()
        with Memory() as memory:
            results = kdsweep.run(spec, progress=watch)
        torch_mb, bare_mb = bare_worker_mb()
    trained = results.trials["train_seconds"]
    first, last = watch.steady(places)
    ended = last.ended - first.ended
    phases = {"imports": imported, "sweep file": checked - imported, "Ray": joined - checked}
    starts = {phase: seconds for seconds, phase in reversed(watch.phases)}
    phases |= {
        "data": starts["teacher"] - starts["data"],
        "teacher and its outputs": starts["search"] - starts["teacher"],
    }
    phases["first epoch"] = next(moment.seconds for moment in watch.moments if moment.epochs) - starts["search"]
    answer = {"phases": phases, "torch_mb": torch_mb, "bare_mb": bare_mb, **memory.highest()}
    if tiny:
        wall = (last.seconds - first.seconds) / ended * places
        answer["trial_ms"] = 1000 * (wall - float(trained.mean()))
        answer["driver_cpu_ms"] = 1000 * (last.cpu_seconds - first.cpu_seconds) / ended
    return answer


class Memory(threading.Thread):
    """Samples the memory of the trial workers during a sweep."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self._samples: list[dict[str, float]] = []

    def run(self) -> None:
        """Take a sample every half second."""
        while not self._over.wait(0.5):
            workers = [memory_of(process) for process in processes_called(*WORKERS)]
            if workers:
                self._samples.append({key: sum(worker[key] for worker in workers) for key in workers[0]})

    def highest(self) -> dict[str, float]:
        """The sample with the largest total over all workers."""
        return max(self._samples, key=lambda sample: sample["pss_mb"])

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self.join()


def processes_called(*names: bytes) -> list[Path]:
    """The /proc folders of all descendants of this process with these names."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(names) and descends(process):
                found.append(process)
        except OSError:  # the process has ended
            continue
    return found


def descends(process: Path) -> bool:
    """Whether a process is a descendant of this one."""
    while process.name not in ("0", "1", str(os.getpid())):
        process = process.with_name((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    return process.name == str(os.getpid())


def bare_worker_mb() -> tuple[float, float]:
    """Private memory of a worker process that has imported what a trial needs, and then made an optimizer.

    The first optimizer of a process imports PyTorch's compiler, whether it is used or not, as in any other program.
    """
    import ray

    def measured() -> tuple[float, float]:
        import torch

        import kdsweep.tune.trainable  # noqa: F401

        imported = memory_of(Path("/proc/self"))["private_mb"]
        torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()
        return imported, memory_of(Path("/proc/self"))["private_mb"]

    # A different environment variable makes Ray start a new process.
    fresh = ray.remote(num_cpus=0, runtime_env={"env_vars": {"KDSWEEP_BENCHMARK_BARE": "1"}})(measured)
    answer: tuple[float, float] = ray.get(fresh.remote())
    return answer


def memory_of(process: Path) -> dict[str, float]:
    """Proportional and private memory of a process."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return {"pss_mb": 0.0, "private_mb": 0.0}
    kilobytes = {line.split(":")[0]: float(line.split()[1]) for line in lines}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {"pss_mb": kilobytes["Pss"] / 1024, "private_mb": private / 1024}


if __name__ == "__main__":
    main()
