"""Passes the logs of a sweep on to one tracker, in a thread, so that the sweep never waits for it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from kdsweep.seeds import digest_of
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal
from kdsweep.tracking.base import Ending, Metrics, Tracker
from kdsweep.tracking.logs import LoggedTrial, SweepLogs
from kdsweep.tracking.sent import SentLog

EVERY_SECONDS = 1.0
_CONSTANT = ("trial", "epoch", "parameters", "size_mb")  # logged when the trial ends


class Feed:
    """Follows the logs of a sweep and gives a tracker everything that it does not have yet.

    The logs are the queue: a tracker that is slow or fails catches up later, in this session or the next one.

    Args:
        tracker: The tracker's class.
        option: The value of its key in the sweep file.
        sweep: The sweep's directory.
        goal: The objective of the sweep.
        tell: Receives the line that says why the tracker is off.
    """

    def __init__(self, tracker: type[Tracker], option: Any, sweep: SweepDir, goal: Goal, tell: Callable[[str], None]):
        self.name = tracker.name
        self._off = f"tracking.{tracker.name}" + (".project=null" if tracker.name == "wandb" else "=false")
        self._class, self._option = tracker, option
        self._sweep, self._goal = sweep, goal
        self._tell = tell
        self._stop = threading.Event()
        self._given_up = False
        self._rows: dict[str, dict[int, dict[str, Any]]] = {}  # of trials whose end was not logged yet
        self._asked: set[str] = set()
        self._thread = threading.Thread(target=self._run, name=f"tracking {self.name}", daemon=True)

    def start(self) -> None:
        """Start to log."""
        self._thread.start()

    def stop(self) -> None:
        """Log what is left, then end."""
        self._stop.set()

    def wait(self, until: float) -> None:
        """Wait until everything is logged, but not beyond a time of `time.monotonic`."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._given_up = True
            self._warn("does not answer, or is too slow")

    def _run(self) -> None:
        try:
            identity = self._class.identity(self._option)
            with closing(SentLog(self._sweep, self.name, identity, self._goal)) as self._sent:
                self._follow(SweepLogs(self._sweep), self._class(self._option, self._sent.group))
        except BaseException as error:  # of code that is not ours; SystemExit too must not end in a traceback
            if not self._given_up:
                self._warn(" ".join(str(error).split()) or type(error).__name__)

    def _follow(self, logs: SweepLogs, tracker: Tracker) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self._pass_on(logs, tracker)
        self._pass_on(logs, tracker)
        tracker.close()

    def _warn(self, reason: str) -> None:
        shown = reason if len(reason) <= 200 else f"{reason[:197]}..."
        resume = f"kdsweep resume {self._sweep}"
        later = f"what is missing is logged by the next: {resume}; to turn it off: {resume} --set {self._off}"
        self._tell(f"warning: {self.name} is off for this session: {shown}; {later}")

    def _pass_on(self, logs: SweepLogs, tracker: Tracker) -> None:
        """Give the tracker everything that is new."""
        trials = logs.trials()  # before the epochs: then all epochs of a trial that has ended are in the log
        for row in logs.new_epochs():
            if not self._sent[row["trial"]].state:
                self._rows.setdefault(row["trial"], {})[int(row["epoch"])] = row
        for trial in trials:
            if not self._sent[trial.key].state:
                self._pass_on_trial(trial, tracker)
        for row in logs.new_confirmed():
            config = next((trial.config for trial in trials if trial.key == row["trial"]), {})
            self._pass_on_confirmed({name: row[name] for name in row if name not in config}, tracker)

    def _pass_on_trial(self, trial: LoggedTrial, tracker: Tracker) -> None:
        key, rows = trial.key, self._rows.get(trial.key, {})
        if not self._sent[key].run:
            self._sent.note(key, run=tracker.start(key, trial.config))
        run = self._sent[key].run
        if key not in self._asked:
            self._asked.add(key)
            if (logged := tracker.logged(run)) > self._sent[key].epoch:
                self._sent.note(key, epoch=logged)
        new = {epoch: _metrics(rows[epoch]) for epoch in sorted(rows) if epoch > self._sent[key].epoch}
        if new:
            tracker.log(run, new)
            self._sent.note(key, epoch=max(new))
        if trial.state:
            tracker.end(run, Ending(trial.state, trial.error, _summary(rows, self._goal)))
            self._sent.note(key, state=trial.state)
            self._rows.pop(key, None)

    def _pass_on_confirmed(self, row: Mapping[str, Any], tracker: Tracker) -> None:
        sent = self._sent[row["trial"]]
        values, texts = _found(row)
        digest = digest_of([values, texts])[:12]
        if sent.run and sent.confirmed != digest:
            tracker.confirm(sent.run, values, texts)
            self._sent.note(row["trial"], confirmed=digest)


def _metrics(row: Mapping[str, Any]) -> Metrics:
    """Return the numbers of an epoch."""
    return {name: float(value) for name, value in row.items() if name not in _CONSTANT and _is_number(value)}


def _summary(rows: Mapping[int, Mapping[str, Any]], goal: Goal) -> Metrics:
    """Return the numbers of a trial, as in `results.trials`; empty if it has no epoch."""
    if not rows:
        return {}
    last = rows[max(rows)]
    best = max(sorted(rows), key=lambda epoch: goal.score(float(rows[epoch][goal.column])))  # the first of equals
    summary = {
        f"best_{goal.column}": rows[best][goal.column],
        "best_epoch": best,
        "epochs": max(rows),
        "train_seconds": sum(row["seconds"] for row in rows.values()),
        **{name: last[name] for name in ("parameters", "size_mb") if name in last},
    }
    return {name: float(value) for name, value in summary.items()}


def _found(row: Mapping[str, Any]) -> tuple[Metrics, dict[str, str]]:
    """Split what the confirmation found into numbers and texts."""
    found = {name: value for name, value in row.items() if name not in _CONSTANT}
    values = {name: float(value) for name, value in found.items() if _is_number(value)}
    return values, {name: value for name, value in found.items() if isinstance(value, str) and value}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
