"""A training run in a worker that may be killed, or hang, at any time."""

from __future__ import annotations

import faulthandler
import time
from pathlib import Path
from typing import IO

from kdsweep.config.spec import SweepSpec
from kdsweep.storage.following import fetch, written
from kdsweep.storage.paths import TrialDir
from kdsweep.training.trainer import SAVE_SECONDS, Training


class Watchdog:
    """Kills this process if it hangs.

    Args:
        hang: File that receives the stacks of a hung process.
        spec: The sweep, which says when a process hangs.
    """

    def __init__(self, hang: Path, spec: SweepSpec):
        self._timeout = spec.resources.step_timeout_seconds
        self._hang: IO[str] = hang.open("w")

    def watch(self) -> None:
        """Start anew: kill the process unless this is called again within the timeout."""
        faulthandler.dump_traceback_later(self._timeout, exit=True, file=self._hang)


class GuardedRun:
    """A training run that is saved periodically and guarded by a watchdog.

    A hung process cannot report itself. faulthandler's watchdog thread kills it after a timeout, and the work
    continues from its saved state in another process.

    Args:
        state: File of the resumable state.
        best: File of the best weights, if they are kept.
        hang: File that receives the stacks of a hung process.
        spec: The sweep.

    Attributes:
        training: The run, once it is created.
    """

    def __init__(self, state: Path, best: Path | None, hang: Path, spec: SweepSpec):
        self.training: Training | None = None
        self._state, self._best = state, best
        self._dog = Watchdog(hang, spec)
        self._saved_at = time.monotonic()
        self._saved_epoch = 0

    def watch(self) -> None:
        """Restart the watchdog: kill the process unless this is called again within the timeout."""
        self._dog.watch()

    def epoch(self) -> dict[str, float]:
        """Train one epoch under the watchdog."""
        assert self.training is not None
        self.watch()
        return self.training.run_epoch()

    def resumed_at(self, epoch: int) -> None:
        """Note that the state of this epoch is saved."""
        self._saved_epoch = epoch

    def save_if(self, wanted: bool) -> None:
        """Save if wanted, or if the last save is more than SAVE_SECONDS old."""
        if wanted or time.monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Save, unless there is no new epoch or the driver has removed the folder."""
        training = self.training
        if training is None or training.epoch == self._saved_epoch or not self._state.parent.is_dir():
            return
        training.save(self._state, self._best)
        self._saved_at = time.monotonic()
        self._saved_epoch = training.epoch


def prepare(folder: TrialDir) -> None:
    """Prepare the folder of a run that may have begun on another node."""
    folder.root.mkdir(parents=True, exist_ok=True)
    if folder.hang.is_file() and folder.hang.stat().st_size:
        written(folder.hang)  # for the driver, before it is written anew
    fetch(folder.state)
