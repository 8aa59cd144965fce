"""What is sent with a submitted sweep: its sweep file and the user's own code, never data or runs."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsweep.config.load import load_spec
from kdsweep.config.yaml import Document
from kdsweep.errors import InputError, SpecError
from kdsweep.sources import source_files, user_objects
from kdsweep.storage.places import Place

MOST_BYTES = 50_000_000  # of code; Ray refuses packages above 500 MB
SHIPPED = "kdsweep:"
LOCAL_DATA = "~/.cache/kdsweep/data"  # of the driver, with a storage to which no data set can be downloaded
# What may be on the cluster only: faults of these keys are left to the job, which checks the file again.
THERE = (
    "dataset.root",
    "dataset.unlabelled.root",
    "teacher.checkpoint",
    "teacher.student",
    "teachers.",
    "search.warm_start",
)


@dataclass(frozen=True)
class Shipment:
    """A sweep that is ready to be submitted.

    Attributes:
        name: Name of the sweep.
        directory: The sweep's directory on the cluster, or its URI.
        storage: The storage that it is in.
        settings: Values that the cluster needs beside the sweep file, by dotted path.
        files: What is sent, by path in the job's working directory.
        unchecked: Faults that only the cluster can judge.
    """

    name: str
    directory: str
    storage: str
    settings: Mapping[str, str]
    files: Mapping[str, Path]
    unchecked: Sequence[str]

    def pack(self, folder: Path) -> None:
        """Copy everything that is sent into a folder."""
        for name, file in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    def command(self, spec: Path, overrides: Sequence[str], resume: bool) -> str:
        """Return the shell command of the job.

        Args:
            spec: The sweep file.
            overrides: The user's own `--set` options.
            resume: Whether to continue the sweep.
        """
        settings = [] if resume else [f"{key}={value}" for key, value in self.settings.items()]
        words = ["python", "-m", "kdsweep"]
        words += ["resume", self.directory] if resume else ["run", spec.name, "--name", self.name]
        words += [] if resume else ["--storage", self.storage]
        for setting in (*overrides, *settings):
            words += ["--set", setting]
        return shlex.join(words)


def shipment(path: Path, values: Mapping[str, Any], code: Sequence[Path], resume: bool) -> Shipment:
    """Check a sweep file here, as far as possible, and collect what the cluster needs.

    Args:
        path: The sweep file.
        values: Overrides by dotted path.
        code: Further files and directories of code to send.
        resume: Whether the sweep is continued.

    Raises:
        SpecError: If the sweep file has faults.
        InputError: If a path in it means something on this machine only.
    """
    document = Document(path)
    for dotted, value in ({} if resume else values).items():
        document.override(dotted, value)
    written = document.values
    name = str(values.get("name") or written.get("name") or path.stem)
    storage = str(values.get("storage") or written.get("storage") or "")
    everywhere = "a directory that every node of the cluster reaches, such as /shared/runs, or s3://..."
    _need_absolute(path, "storage", storage, everywhere)
    settings = _of_cluster(path, written, storage)
    unchecked = _unchecked(path, {} if resume else values)
    files = {path.name: path} | _own_code(written) | _further(code)
    size = sum(file.stat().st_size for file in files.values())
    if size > MOST_BYTES:
        largest = max(files.values(), key=lambda file: file.stat().st_size)
        accepted = f"at most {MOST_BYTES / 1e6:.0f} MB"
        raise InputError(f"the code to send has {size / 1e6:.0f} MB, most of it {largest}; accepted: {accepted}")
    place = Place.of(storage)
    return Shipment(name, (place / name).text, place.text, settings, files, unchecked)


def _need_absolute(path: Path, key: str, value: str, accepted: str) -> None:
    place = Place.of(value)
    if not place.is_remote and not value.startswith(("/", "file://")):
        found = f"found {value!r}" if value else "missing"
        raise InputError(
            f"{path}: {key}: {found}; accepted: {accepted}, because the job runs in a folder of its own on the cluster"
        )


def _of_cluster(path: Path, written: Mapping[str, Any], storage: str) -> dict[str, str]:
    """Return settings for keys whose defaults are relative paths, and refuse relative paths that the user wrote."""
    dataset, search = (written.get(key) or {} for key in ("dataset", "search"))
    for key, value in _teacher_places(written).items():
        if not value.startswith(SHIPPED):
            _need_absolute(path, key, value, "an absolute path on the cluster, or s3://...")
    for index, earlier in enumerate(search.get("warm_start") or ()):
        _need_absolute(path, f"search.warm_start.{index}", str(earlier), "an absolute path on the cluster")
    unlabelled = dataset.get("unlabelled")
    if isinstance(unlabelled, Mapping):
        key = "dataset.unlabelled.root"
        _need_absolute(path, key, str(unlabelled.get("root")), "an absolute path on the cluster, or s3://...")
    root = dataset.get("root")
    if root is None:
        below = LOCAL_DATA if Place.of(storage).is_remote else f"{storage.rstrip('/')}/data"
        return {"dataset.root": below}
    _need_absolute(path, "dataset.root", str(root), "an absolute path on the cluster, or s3://...")
    return {}


def _unchecked(path: Path, values: Mapping[str, Any]) -> list[str]:
    """Check the sweep file; return the faults that may not be faults on the cluster.

    Raises:
        SpecError: With the others, if there are any.
    """
    try:
        load_spec(path, values)
    except SpecError as error:
        there = [fault for fault in error.faults if any(f" {key}" in fault for key in THERE)]
        if faults := [fault for fault in error.faults if fault not in there]:
            raise SpecError(faults) from error
        return there
    return []


def _own_code(written: Mapping[str, Any]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for name in sorted(user_objects(dict(written)) - _shipped(written)):
        files |= source_files(name)
    return files


def _shipped(written: Mapping[str, Any]) -> set[str]:
    """The names of checkpoints that come with kdsweep look like those of objects."""
    return {value for value in _teacher_places(written).values() if value.startswith(SHIPPED)}


def _teacher_places(written: Mapping[str, Any]) -> dict[str, str]:
    """Return the checkpoints of all teachers and the students that are teachers, by their keys."""
    several = written.get("teachers") or {}
    sections = {"teacher": written.get("teacher") or {}} | {f"teachers.{name}": several[name] or {} for name in several}
    found = {f"{at}.{key}": section.get(key) for at, section in sections.items() for key in ("checkpoint", "student")}
    return {key: str(value) for key, value in found.items() if value}


def _further(code: Sequence[Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for place in code:
        if place.is_file():
            files[place.name] = place
        elif place.is_dir():
            inside = [file for file in place.rglob("*.py") if "__pycache__" not in file.parts]
            files |= {str(Path(place.absolute().name) / file.relative_to(place)): file for file in sorted(inside)}
        else:
            raise InputError(f"--code {place}: no such file or directory; accepted: a .py file, or a directory of them")
    return files
