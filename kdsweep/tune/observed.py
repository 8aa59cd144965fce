"""Passes the progress of a sweep on to those who watch it, and to Ray's metrics and the sweep's log file."""

from __future__ import annotations

import logging
import math
import threading
import time

from ray.util.metrics import Counter, Gauge

from kdsweep.storage.driver_log import log
from kdsweep.terminal.progress import Pace, Progress, SearchStatus

# Names and descriptions. Ray puts `ray_` before the names, and `_total` behind that of the counter.
GAUGES = {
    "kdsweep_trials": "trials by state",
    "kdsweep_trials_target": "trials that the search will run",
    "kdsweep_best": "best value of the objective: of all students, of plain students, and of the teacher",
    "kdsweep_epochs_per_second": "epochs per second over about the last minute, over all trials",
    "kdsweep_workers": "concurrent workers",
    "kdsweep_busy_ratio": "share of the workers' time that was spent on trials, from 0 to 1",
    "kdsweep_budget_spent_ratio": "spent share of the budget, from 0 to 1; 0 without a budget",
}
COUNTERS = {"kdsweep_epochs": "epochs trained by this driver, over all trials"}
SECONDS = 1.0  # between two updates of the metrics; Ray exports them less often
REPEAT_SECONDS = 5.0  # Ray exports a gauge once each time that it is set, so it is set again while nothing happens


def tags_of(name: str) -> tuple[str, ...]:
    """Return the tags of a metric."""
    return ("sweep", *{"kdsweep_trials": ("state",), "kdsweep_best": ("objective", "of")}.get(name, ()))


class Observed:
    """Progress that is also logged and measured. Metrics begin with the search, and end with this context.

    Args:
        shown: Receives the same.
        sweep: Name of the sweep, which every metric has as a tag.
    """

    def __init__(self, shown: Progress, sweep: str):
        self._shown = shown
        self._sweep = sweep
        self._metrics: _Metrics | None = None
        self._pace: Pace | None = None
        self._next = -math.inf

    def phase(self, name: str, text: str) -> None:
        log(logging.INFO, text, sweep=self._sweep, phase=name)
        self._shown.phase(name, text)

    def counted(self, name: str, done: int, total: int, text: str) -> None:
        log(logging.DEBUG, text, sweep=self._sweep, phase=name, done=done, total=total)
        self._shown.counted(name, done, total, text)

    def search(self, status: SearchStatus) -> None:
        self._shown.search(status)
        now = time.monotonic()
        if self._pace is None or self._metrics is None:
            self._pace, self._metrics = Pace(time.monotonic), _Metrics(self._sweep)
        self._pace.note(status.done, status.epochs)
        if status.over or now >= self._next:
            self._next = now + SECONDS
            self._metrics.update(status, self._pace.epochs_per_second)

    def __enter__(self) -> Observed:
        """Return this. What is shown has a context of its own."""
        return self

    def __exit__(self, *exc: object) -> None:
        if self._metrics is not None:
            self._metrics.close()


class _Metrics:
    """The metrics of one sweep, at the metrics endpoint of the driver's node."""

    def __init__(self, sweep: str):
        self._gauges = {name: Gauge(name, text, tags_of(name)) for name, text in GAUGES.items()}
        (name, text), *_ = COUNTERS.items()
        self._epochs = Counter(name, text, tags_of(name))
        self._told = 0
        self._sweep = sweep
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._repeat, daemon=True).start()

    def close(self) -> None:
        """Stop exporting."""
        self._closed.set()

    def update(self, status: SearchStatus, epochs_per_second: float) -> None:
        """Set all metrics; what is not known yet is left out."""
        for state in ("running", "waiting", "complete", "pruned", "failed"):
            self._set("kdsweep_trials", getattr(status, state), state=state)
        values = {"student": status.best_value, "plain": status.plain_value, "teacher": status.teacher_value}
        for of, value in values.items():
            self._set("kdsweep_best", value, objective=status.objective, of=of)
        self._set("kdsweep_trials_target", status.target)
        self._set("kdsweep_epochs_per_second", epochs_per_second)
        self._set("kdsweep_workers", status.workers)
        self._set("kdsweep_busy_ratio", min(1.0, status.busy))
        self._set("kdsweep_budget_spent_ratio", status.spent)
        if status.epochs > self._told:
            self._epochs.inc(status.epochs - self._told, {"sweep": self._sweep})
            self._told = status.epochs

    def _set(self, name: str, value: float, **tags: str) -> None:
        if not math.isnan(value):
            self._values[name, tuple(tags.items())] = value
            self._gauges[name].set(value, {"sweep": self._sweep, **tags})

    def _repeat(self) -> None:
        while not self._closed.wait(REPEAT_SECONDS):
            for (name, tags), value in list(self._values.items()):
                self._gauges[name].set(value, {"sweep": self._sweep, **dict(tags)})
