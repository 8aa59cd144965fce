"""Measures how many processes train fastest on one GPU, beside what fits into its memory.

A small student leaves most of a GPU idle, and so do several; but at some number they only wait for each other. 1, 2, 4,
... processes train at the same time, each as a lane does, until more of them do not train faster in all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from kdsweep import tasks
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.distributions import Config
from kdsweep.lazy import torch
from kdsweep.storage.paths import SweepDir
from kdsweep.worker import gpu, process
from kdsweep.worker.capacity import FASTER, Probe
from kdsweep.worker.short_runs import SECONDS, short_together, steps_of
from kdsweep.worker.workbench import Workbench

START_SECONDS = 120.0
_BEGIN = """\
import json, sys
sys.path[:] = json.loads(sys.stdin.readline())
from kdsweep.worker.crowds import child
child()
"""


def measured_crowds(spec: SweepSpec, bench: Workbench, config: Config, found: Probe) -> dict[str, float]:
    """Return the steps of trials per second of 1, 2, 4, ... processes on the GPU, each with a cohort of the sweep.

    Args:
        spec: The sweep, whose file and teacher are in its directory.
        bench: Its workbench on the GPU.
        config: What the processes train.
        found: What is measured already, for how many processes there is memory.

    Returns:
        By the number of processes, ascending; the last one may be slower than the one before. Empty if a process of its
        own cannot train this sweep, for example because its model exists only in the memory of Ray.
    """
    if isinstance(spec.train.cohort, int):
        size = spec.train.cohort
    else:  # as the search groups students of this width
        width = float(str(config["width"]))
        size = found.cohort(str(config.get("student", "")), width, found.most_at_once)
    cores = (os.cpu_count() or 1) // max(1, int(spec.resources.cpus_per_trial))
    most = max(1, min(found.fitting(size), cores))
    place = {"root": str(bench.sweep.root), "uri": bench.sweep.uri, "data": str(bench.data.root)}
    request = {**place, "config": dict(config), "size": size}
    rates: dict[str, float] = {}
    number = 1
    with closing(_Crowd(request)) as crowd:
        while rate := size * crowd.rate(number):
            slower = bool(rates) and rate < FASTER * max(rates.values())
            rates[str(number)] = float(f"{rate:.4g}")
            if slower or number == most:
                break
            number = min(2 * number, most)
    return rates


class _Crowd:
    """Processes that train on the same GPU on demand."""

    def __init__(self, request: dict[str, Any]):
        self._request = request
        self._children: list[subprocess.Popen[str]] = []

    def rate(self, number: int) -> float:
        """Return the steps per second of this many processes together; 0 if one of them ended."""
        started = [self._start() for _ in range(number - len(self._children))]
        self._children += started
        if not all(_answer(one, START_SECONDS) for one in started):
            return 0.0
        for one in self._children:
            _tell(one, "go")
        answers = [_answer(one, START_SECONDS) for one in self._children]
        return sum(map(float, answers)) if all(answers) else 0.0

    def close(self) -> None:
        """End all processes."""
        for one in self._children:
            one.kill()
            one.communicate()

    def _start(self) -> subprocess.Popen[str]:
        one = subprocess.Popen(
            [sys.executable, "-P", "-c", _BEGIN],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        _tell(one, json.dumps(sys.path))
        _tell(one, json.dumps(self._request))
        return one


def _tell(one: subprocess.Popen[str], line: str) -> None:
    assert one.stdin is not None
    try:
        one.stdin.write(line + "\n")
        one.stdin.flush()
    except OSError:  # it has ended, which the missing answer tells
        pass


def _answer(one: subprocess.Popen[str], seconds: float) -> str:
    """Return a process's next line; empty if it ended, or is killed because there is none in time."""
    assert one.stdout is not None
    timer = threading.Timer(seconds, one.kill)
    timer.start()
    try:
        return one.stdout.readline().strip()
    finally:
        timer.cancel()


def child() -> None:
    """Train when told to, and answer with the steps per second. Ends with the process that started it."""
    request = json.loads(sys.stdin.readline())
    sweep = SweepDir(Path(request["root"]), request["uri"])
    spec = read_spec(sweep)
    gpu.set_up()
    process.set_up(spec.resources.cpus_per_trial)
    data = tasks.of(spec.dataset).load(Path(request["data"]))
    bench = Workbench.of(spec, sweep, data, torch.device("cuda"))
    training = short_together(spec, bench, request["config"], bench.val.first(2), request["size"])
    training.run_epoch()  # with what is done once
    _say("ready")
    for _ in sys.stdin:
        started, epochs = time.perf_counter(), 0
        while (taken := time.perf_counter() - started) < SECONDS:
            training.run_epoch()
            epochs += 1
        _say(str(epochs * steps_of(spec, bench, request["config"]) / taken))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
