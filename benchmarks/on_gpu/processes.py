"""Trial-steps per second of 1 to 16 processes that share a GPU, with and without NVIDIA's MPS.

Each process trains trials one by one, as a lane does. Called as a script, this module is one such process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import benches
from measure import say

from on_gpu.children import answer, started, tell
from on_gpu.section import Found, Setting, bench

COUNTS = (1, 2, 4, 8, 16)
SECONDS, STEPS = 3.0, 20
CONTROL = "nvidia-cuda-mps-control"


def measure(setting: Setting) -> Found:
    """Let the first 1, 2, 4, ... of the same processes train at the same time."""
    counts, seconds = (COUNTS[:2], 0.1) if setting.quick else (COUNTS, SECONDS)
    found = Found(f"kd on lightnn, {seconds:g} s of training by each process", [], {})
    opened(setting.folder, setting.quick)  # the processes find the data and the teacher's outputs
    rates = {"without MPS": together(setting, counts, seconds, {})}
    try:
        with mps(setting.folder) as environment:
            rates["with MPS"] = together(setting, counts, seconds, environment)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        found.notes.append(f"with MPS: not measured: {error}")
    for name, measured in rates.items():
        found.figures[name] = measured
        for count, rate in measured.items():
            found.table.append({
                "processes": count, "MPS": name.split()[0], "trial-steps per second": f"{rate:,.0f}",
                "times one process": f"{rate / rates['without MPS'][counts[0]]:.2f}",
            })  # fmt: skip
    return found


def together(
    setting: Setting, counts: Sequence[int], seconds: float, environment: Mapping[str, str]
) -> dict[int, float]:
    """Return the trial-steps per second of all processes, by their number."""
    say(f"starting {counts[-1]} processes")
    arguments = (setting.folder, int(setting.quick))
    with started(counts[-1], __file__, arguments, {**environment, "OMP_NUM_THREADS": "1"}) as running:
        for one in running:
            answer(one)  # ready
        rates = {}
        for count in counts:
            for one in running[:count]:
                tell(one, seconds)
            rates[count] = sum(float(answer(one)) for one in running[:count])
        return rates


@contextmanager
def mps(folder: Path) -> Iterator[dict[str, str]]:
    """Run NVIDIA's MPS, and yield the environment of processes that use it.

    Raises:
        RuntimeError: If it is not installed.
        CalledProcessError: If it cannot be started.
    """
    if shutil.which(CONTROL) is None:
        raise RuntimeError(f"{CONTROL} is not installed")
    environment = {f"CUDA_MPS_{kind}_DIRECTORY": str(folder / f"mps-{kind.lower()}") for kind in ("PIPE", "LOG")}
    for place in environment.values():
        Path(place).mkdir(exist_ok=True)
    command: dict[str, Any] = {"env": {**os.environ, **environment}, "timeout": 20, "capture_output": True}
    subprocess.run([CONTROL, "-d"], check=True, **command)
    try:
        yield environment
    finally:
        subprocess.run([CONTROL], input=b"quit\n", check=False, **command)


def opened(folder: Path, quick: bool) -> Any:
    """Return the bench of these processes."""
    return bench(Setting(folder, quick), "processes", "lightnn")


def main() -> None:
    """Train for the seconds that each line of the standard input names; answer with the steps per second."""
    run = benches.training(opened(Path(sys.argv[1]), sys.argv[2] == "1"), benches.members(1, width=1.0)[0], STEPS)
    run.run_epoch()
    print("ready", flush=True)
    for line in sys.stdin:
        steps, began = 0, time.perf_counter()
        while time.perf_counter() - began < float(line):
            run.run_epoch()
            steps += STEPS
        print(steps / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
