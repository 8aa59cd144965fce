"""The directory layout of a sweep; all file names are defined here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kdsweep.errors import SweepDirError
from kdsweep.storage.bucket import split
from kdsweep.storage.following import fetch
from kdsweep.storage.mirror import CACHE, COPY, DRIVER, Mirror, is_log, is_needed, is_settled, is_told, mirror_of
from kdsweep.storage.places import Place, reason_of
from kdsweep.storage.store_errors import StoreError

_KEY = re.compile(r"[0-9]{4,}-[0-9a-f]{6}")


@dataclass(frozen=True)
class SweepDir:
    """The directory `STORAGE/NAME` of one sweep, as paths.

    Attributes:
        root: Absolute path, reachable from every node; of a sweep in an object store, the folder of its files on this
            machine.
        uri: Where the sweep is, if it is in an object store; see `mirror`.
        taught_by: The teacher that the paths of a teacher are about, of a sweep with several; else empty.
    """

    root: Path
    uri: str = ""
    taught_by: str = ""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle by URI: the folder of this machine may be another one on the next, and is never a driver's there."""
        if self.uri:
            return (_copy_of, (self.uri, self.taught_by))
        return (type(self), (self.root, "", self.taught_by))

    def __str__(self) -> str:
        return self.uri or str(self.root)

    def of_teacher(self, name: str) -> SweepDir:
        """Return the same directory with the paths of one of several teachers; an empty name is the only one."""
        return replace(self, taught_by=name)

    @classmethod
    def at(cls, place: str | Path | Place, role: str = DRIVER) -> SweepDir:
        """Return the directory of a sweep, whether it exists or not.

        Args:
            place: A path or a URI.
            role: Of a URI, whose files on this machine are meant: the driver's, or those of all other processes.
        """
        place = Place.of(place)
        if not place.is_remote:
            return cls(Path(place.text))
        return cls(mirror_of(split(place.text)[0]).root / role / place.name, place.text)

    @classmethod
    def existing(cls, path: str | Path | Place | SweepDir) -> SweepDir:
        """Open the existing sweep directory at `path`, for reading.

        Args:
            path: A path or a URI, of which the files that results are read from are fetched; or an opened one, which
                is brought up to date.

        Raises:
            SweepDirError: If `path` is not a sweep directory, or its object store cannot be read.
        """
        if isinstance(path, SweepDir):
            path.refresh()
            return path
        place = Place.of(path)
        if place.is_remote:
            cls.need(place)
            sweep = cls.at(place, COPY)
            sweep.refresh()
            return sweep
        sweep = cls(Path(place.text))
        if not os.path.isdir(sweep.root):  # unlike Path.is_dir, False for names that are too long
            raise SweepDirError(f"{path}: no such directory; accepted: a sweep directory such as runs/quickstart")
        if not sweep.spec.is_file():
            raise SweepDirError(f"{path}: not a sweep directory: {sweep.spec.name} is missing")
        return sweep

    @classmethod
    def need(cls, place: Place) -> None:
        """Check that there is a sweep, without fetching one.

        Raises:
            SweepDirError: If there is none, or its object store cannot be read.
        """
        if not place.is_remote:
            cls.existing(place)
            return
        with _readable(place):
            bucket = mirror_of(place.text if place.is_bucket else split(place.text)[0]).bucket
            there = None if place.is_bucket else bucket.head(f"{place.name}/{cls.at(place).spec.name}")
            if there is None:
                bucket.listed(f"{place.name}/.log")  # says so if there is no such bucket
        if there is None:
            raise SweepDirError(
                f"{place}: no such sweep; accepted: the URI of a sweep, such as s3://bucket/runs/quickstart"
            )

    def refresh(self) -> None:
        """Fetch what others have written to an object store since, except states and weights.

        Raises:
            SweepDirError: If the store cannot be read.
        """
        if self.mirror is None:
            return
        with _readable(self):
            if self.mirror.drives(self.root):
                self.mirror.sync(self.root, is_told)
                return
            self.mirror.sync(self.root, is_told, lambda name: not is_log(name) and is_settled(self.root / name))
            self.mirror.restore_logs(self.root)

    def fetch_weights(self, keys: Iterable[str]) -> None:
        """Fetch the weights of trials, if the sweep is in an object store.

        Raises:
            SweepDirError: If the store cannot be read.
        """
        if self.mirror is not None:
            with _readable(self):
                fetch(*(file for key in keys for file in (self.trial(key).best, self.trial(key).state)))

    def fetch_needed(self) -> None:
        """Fetch what a worker reads, if the sweep is in an object store.

        Logs are not. Versions of the sweep file that a reader left here may lack the present one, and are removed.
        """
        if self.mirror is not None:
            self.mirror.forget_log(self.specs)
            self.mirror.sync(self.root, is_needed)

    @property
    def mirror(self) -> Mirror | None:
        """The local side of the object store that the sweep is in."""
        return mirror_of(split(self.uri)[0]) if self.uri else None

    @property
    def place(self) -> Place:
        """Where the sweep is."""
        return Place.of(str(self))

    @property
    def storage(self) -> str:
        """The storage that the sweep is in."""
        return split(self.uri)[0] if self.uri else str(self.root.parent)

    @property
    def name(self) -> str:
        """The name of the directory, and so of the sweep."""
        return self.root.name

    @property
    def spec(self) -> Path:
        """The sweep file with all defaults resolved."""
        return self.root / "spec.yaml"

    @property
    def specs(self) -> Path:
        """Every version of `spec`, one per line; `read_spec` compares the file with them to detect edits."""
        return self.root / "specs.jsonl"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def driver_log(self) -> Path:
        """What happened when, one JSON object per line."""
        return self.root / "driver.log"

    @property
    def lock(self) -> Path:
        """Lock file, held by the running driver."""
        return self.root / ".lock"

    @property
    def data(self) -> Path:
        """Classes, image shape and normalisation of the data."""
        return self.root / "data.json"

    @property
    def code(self) -> Path:
        """Hashes of the user's own source files that the sweep uses."""
        return self.root / "code.json"

    @property
    def teacher(self) -> Path:
        return self.root / "teachers" / self.taught_by if self.taught_by else self.root / "teacher"

    @property
    def teacher_weights(self) -> Path:
        return self.teacher / "model.safetensors"

    @property
    def teacher_card(self) -> Path:
        """Description of the teacher: model, accuracy, size, training."""
        return self.teacher / "teacher.json"

    @property
    def teacher_example(self) -> Path:
        """The teacher's outputs for a small batch."""
        return self.teacher / "example.safetensors"

    def teacher_answers(self, split: str) -> Path:
        """The teacher's logits for a whole split."""
        return self.teacher / f"{split}_logits.bin"

    @property
    def teacher_test(self) -> Path:
        """The teacher's test accuracy, written by the confirmation."""
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
        """One line per trial and epoch, in order of arrival."""
        return self.root / "epochs.jsonl"

    @property
    def search_time(self) -> Path:
        """How long the search ran, one line per few seconds."""
        return self.root / "search_time.jsonl"

    @property
    def warm_start(self) -> Path:
        """What the sweep took from earlier ones when its search began."""
        return self.root / "warm_start.json"

    @property
    def latency(self) -> Path:
        """Measured latencies, one file per architecture."""
        return self.root / "latency"

    @property
    def costs(self) -> Path:
        """Latency, throughput and memory of the teacher and of each distinct student, measured after the search."""
        return self.root / "costs.json"

    @property
    def probe(self) -> Path:
        """Measurements of the machine, made before the search."""
        return self.root / "probe.json"

    @property
    def trials(self) -> Path:
        """One folder per trial that has saved weights or training state."""
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
    def predictions(self) -> Path:
        """`results.predictions`."""
        return self.root / "predictions.parquet"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def tensorboard(self) -> Path:
        """One folder of TensorBoard event files per trial."""
        return self.root / "tensorboard"

    @property
    def tracking(self) -> Path:
        """What each tracker has been given."""
        return self.root / "tracking"

    def tracked(self, tracker: str) -> Path:
        """What one tracker has been given, one line per step."""
        return self.tracking / f"{tracker}.jsonl"

    @property
    def tune(self) -> Path:
        """Ray Tune's scratch directory, not needed after the search."""
        return self.root / ".tune"

    @property
    def store(self) -> Store:
        """The cache shared by all sweeps of the same storage."""
        return Store((self.mirror.root if self.mirror else self.root.parent) / CACHE)

    def trial(self, key: str) -> TrialDir:
        """The folder of one trial.

        Raises:
            SweepDirError: If `key` is not a valid trial key; this keeps paths inside the sweep directory.
        """
        if not _KEY.fullmatch(key):
            raise SweepDirError(f"invalid trial key {key!r}; accepted: a key such as 0007-3fa2c1")
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
        """Training state for resuming: weights, optimizer, schedule, random state."""
        return self.root / "state.safetensors"

    @property
    def best(self) -> Path:
        """The student's weights from its best epoch."""
        return self.root / "best.safetensors"

    @property
    def hang(self) -> Path:
        """Stack traces of a worker whose step timed out."""
        return self.root / "hang.txt"

    @property
    def result(self) -> Path:
        """The results of a confirmation run."""
        return self.root / "result.json"


@dataclass(frozen=True)
class Store:
    """Content-addressed cache shared by sweeps: data, teachers and teacher outputs."""

    root: Path

    def data(self, digest: str) -> Path:
        """Folder of the decoded images of one data set."""
        return self.root / "data" / digest

    def teacher(self, digest: str) -> Path:
        """Folder of a trained teacher."""
        return self.root / "teachers" / digest

    @property
    def objects(self) -> Path:
        """Data sets and teachers that were passed to kdsweep.sweep as Python objects."""
        return self.root / "objects"

    def outputs(self, digest: str) -> Path:
        """Folder of one teacher's outputs on one data set."""
        return self.root / "outputs" / digest

    def hashes(self, digest: str) -> Path:
        """Remembered hashes of the files of one data set directory."""
        return self.root / "hashes" / f"{digest}.json"

    def probe(self, digest: str) -> Path:
        """What was measured with one kind of student on one kind of machine."""
        return self.root / "probes" / f"{digest}.json"


def _copy_of(uri: str, taught_by: str) -> SweepDir:
    return SweepDir.at(uri, COPY).of_teacher(taught_by)


@contextmanager
def _readable(place: object) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise SweepDirError(f"{place}: cannot be read: {reason_of(error)}") from error
