"""Where everything of a sweep lies: the only place that spells file names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kdsweep.errors import SweepDirError

_KEY = re.compile(r"[0-9]{4,}-[0-9a-f]{6}")


@dataclass(frozen=True)
class SweepDir:
    """The directory `STORAGE/NAME` of one sweep, as paths.

    Attributes:
        root: An absolute path that every node reaches.
    """

    root: Path

    @classmethod
    def existing(cls, path: str | Path) -> SweepDir:
        """The sweep directory at `path`.

        Raises:
            SweepDirError: If there is none.
        """
        sweep = cls(Path(path).expanduser().absolute())
        if not sweep.root.is_dir():
            raise SweepDirError(f"{path}: no such directory; accepted: a sweep directory such as runs/quickstart")
        if not sweep.spec.is_file():
            raise SweepDirError(f"{path}: not a sweep directory, it holds no {sweep.spec.name}")
        return sweep

    @property
    def spec(self) -> Path:
        """The resolved sweep file."""
        return self.root / "spec.yaml"

    @property
    def environment(self) -> Path:
        """Versions, hardware and the command line."""
        return self.root / "environment.json"

    @property
    def lock(self) -> Path:
        """Held by the one driver."""
        return self.root / ".lock"

    @property
    def data(self) -> Path:
        """What is known of the data: classes, image shape, normalisation."""
        return self.root / "data.json"

    @property
    def teacher(self) -> Path:
        """The teacher's weights and description."""
        return self.root / "teacher"

    @property
    def teacher_weights(self) -> Path:
        """The teacher's weights."""
        return self.teacher / "model.safetensors"

    @property
    def teacher_card(self) -> Path:
        """What is known of the teacher: model, accuracy, size, training."""
        return self.teacher / "teacher.json"

    @property
    def teacher_example(self) -> Path:
        """Its outputs of a small batch."""
        return self.teacher / "example.safetensors"

    @property
    def teacher_test(self) -> Path:
        """The teacher on the test split, once confirmation has looked."""
        return self.teacher / "test.json"

    @property
    def teacher_epochs(self) -> Path:
        """One line per epoch of the teacher's training."""
        return self.teacher / "epochs.jsonl"

    @property
    def journal(self) -> Path:
        """The Optuna journal."""
        return self.root / "study.journal"

    @property
    def epochs_log(self) -> Path:
        """One line per trial and epoch, in the order of arrival."""
        return self.root / "epochs.jsonl"

    @property
    def probe(self) -> Path:
        """What was measured of the machine before the search."""
        return self.root / "probe.json"

    @property
    def trials(self) -> Path:
        """One folder per trial that still has something to keep."""
        return self.root / "trials"

    @property
    def trials_frame(self) -> Path:
        """`results.trials`."""
        return self.root / "trials.parquet"

    @property
    def epochs_frame(self) -> Path:
        """`results.epochs`."""
        return self.root / "epochs.parquet"

    @property
    def confirmed_frame(self) -> Path:
        """`results.confirmed`."""
        return self.root / "confirmed.parquet"

    @property
    def confirmed(self) -> Path:
        """One folder per confirmation run."""
        return self.root / "confirmed"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report.html"

    @property
    def tune(self) -> Path:
        """Ray Tune's own scratch, of no use once the search has ended."""
        return self.root / ".tune"

    @property
    def store(self) -> Store:
        """What the sweeps of one storage share."""
        return Store(self.root.parent / ".cache")

    def trial(self, key: str) -> TrialDir:
        """The folder of one trial.

        Raises:
            SweepDirError: If `key` is not written as a key is; it can never leave the sweep directory.
        """
        if not _KEY.fullmatch(key):
            raise SweepDirError(f"trial {key!r} is not a key; accepted: a key such as 0007-3fa2c1")
        return TrialDir(self.trials / key)

    def confirmation(self, name: str) -> TrialDir:
        """The folder of one confirmation run."""
        return TrialDir(self.confirmed / name)


@dataclass(frozen=True)
class TrialDir:
    """The folder of one training run."""

    root: Path

    @property
    def state(self) -> Path:
        """What the run needs to go on: weights, optimizer, schedule, random state."""
        return self.root / "state.safetensors"

    @property
    def best(self) -> Path:
        """The student's weights at its best epoch."""
        return self.root / "best.safetensors"

    @property
    def hang(self) -> Path:
        """Where a worker stood when its step hung."""
        return self.root / "hang.txt"

    @property
    def result(self) -> Path:
        """What a confirmation run measured."""
        return self.root / "result.json"


@dataclass(frozen=True)
class Store:
    """Content-addressed things that sweeps of one storage share: data, teachers and teacher outputs."""

    root: Path

    def data(self, digest: str) -> Path:
        """Decoded images of one data set."""
        return self.root / "data" / digest

    def teacher(self, digest: str) -> Path:
        """A trained teacher."""
        return self.root / "teachers" / digest

    def outputs(self, digest: str) -> Path:
        """Outputs of one teacher on one data set."""
        return self.root / "outputs" / digest
