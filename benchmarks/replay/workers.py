"""Simulated asynchronous workers: each trains one trial at a time, epoch by epoch, at the recorded speed."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kdsweep.distributions import Config
from replay.curves import Curve, Curves


@dataclass
class Job:
    """A trial on a worker.

    Attributes:
        key: Its name for the strategy.
        config: The configuration.
        epochs: Number of finished epochs; a paused trial that continues begins above 0.
    """

    key: str
    config: Config
    epochs: int = 0


class Strategy(Protocol):
    """A search under test."""

    def ask(self) -> Job | None:
        """Return a new or a paused trial; None if there is nothing to do before the next report."""

    def report(self, job: Job, value: float, seconds: float) -> bool:
        """Record the accuracy of the epoch `job.epochs`; return whether the trial goes on."""

    def close(self) -> None:
        """Release what the strategy holds."""


class Epoch(NamedTuple):
    """A finished epoch.

    Attributes:
        key: The trial.
        config: Its configuration.
        number: The epoch, counted from 1.
        value: The accuracy that the strategy saw.
        true: What the configuration is worth.
        hours: Simulated time since the start.
    """

    key: str
    config: Config
    number: int
    value: float
    true: float
    hours: float


def replay(strategy: Strategy, curves: Curves, workers: int, budget: int) -> Iterator[Epoch]:
    """Yield finished epochs in order of time, until the budget is used up or the strategy has nothing left to do.

    Args:
        strategy: The search.
        curves: What each configuration reaches.
        workers: Number of workers.
        budget: Maximum number of epochs.
    """
    known: dict[str, Curve] = {}
    running: list[tuple[float, int, Job]] = []
    started, idle, now = 0, workers, 0.0

    def start(job: Job) -> None:
        nonlocal started
        if job.key not in known:
            known[job.key] = curves.of(job.config)
        heapq.heappush(running, (now + known[job.key].seconds, started, job))
        started += 1

    for _ in range(budget):
        while idle and (job := strategy.ask()) is not None:
            idle -= 1
            start(job)
        if not running:
            return
        now, _, job = heapq.heappop(running)
        curve = known[job.key]
        job.epochs += 1
        value = float(curve.values[job.epochs - 1])
        if strategy.report(job, value, curve.seconds):
            start(job)
        else:
            idle += 1
        yield Epoch(job.key, job.config, job.epochs, value, curve.true, now / 3600)
