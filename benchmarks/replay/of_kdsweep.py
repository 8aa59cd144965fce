"""kdsweep's own search: the real `Study` on a temporary sweep directory, driven as `kdsweep.tune.search` does."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from record import MNIST, SPACE

from kdsweep.config.load import load_spec
from kdsweep.search.study import State, Study
from replay.workers import Job

MEMORY = Path("/dev/shm")
# More than any replay asks for.
TRIALS = 100_000


class KdsweepSearch:
    """A sweep's search.

    Args:
        seed: Seed of the sweep.
        epochs: Epochs of each trial.
        overrides: Settings of the sweep file that differ from the defaults, by dotted path.
    """

    def __init__(self, seed: int, epochs: int, overrides: Mapping[str, Any]):
        self._folder = Path(tempfile.mkdtemp(prefix="replay-", dir=MEMORY if MEMORY.is_dir() else None))
        values = {
            **MNIST, "name": "replay", "seed": seed, "space": SPACE, "storage": str(self._folder / "runs"),
            "train": MNIST["train"] | {"epochs": epochs}, "search": {"trials": TRIALS},
        }  # fmt: skip
        path = self._folder / "replay.yaml"
        path.write_text(json.dumps(values))
        spec = load_spec(path, dict(overrides))
        self._epochs = epochs
        self._study = Study(spec, spec.sweep_dir, spec.search_space)

    def ask(self) -> Job | None:
        """Return the study's next trial, new or paused."""
        trial = self._study.ask()
        return Job(trial.key, trial.config, len(trial.values)) if trial else None

    def report(self, job: Job, value: float, seconds: float) -> bool:
        """Report an epoch to the study, and end the trial as it says."""
        metrics = {"epoch": job.epochs, "val_accuracy": value, "seconds": seconds}
        if self._study.report(job.key, metrics):
            self._study.leave(job.key)
            return False
        if job.epochs == self._epochs:
            self._study.finish(job.key, State.COMPLETE)
            return False
        return True

    def close(self) -> None:
        """Remove the sweep directory."""
        self._study.close()
        shutil.rmtree(self._folder)
