"""The environment of a sweep: versions, hardware and command line of every start of the driver, and its workers."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kdsweep.errors import SweepDirError
from kdsweep.storage.files import read_json, write_json

PACKAGES = ("kdsweep", "torch", "torchvision", "ray", "optuna", "numpy")


def describe_environment(command: Sequence[str]) -> dict[str, Any]:
    """Facts that a reader of the results may ask for.

    Args:
        command: The command line.
    """
    return {
        "started": utc_now(),
        "command": list(command),
        **describe_process(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "gpus": [],
    }


def describe_process() -> dict[str, Any]:
    """Where this process runs, and with which versions."""
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class EnvironmentFile:
    """The file that records the environments of a sweep.

    `starts` has one entry per start of the driver, with its timeline, and `workers` one per worker process. The keys of
    one start are repeated at the top, as earlier versions wrote them: those of the last start that trained, so that a
    resume without work hides nothing.

    Args:
        path: The file; the records of earlier starts in it are kept.
        start: Describes this start; see `describe_environment`.
    """

    def __init__(self, path: Path, start: Mapping[str, Any]):
        self._path = path
        self._start = dict(start)
        self._earlier, self._workers = _earlier(path)

    def add(self, **facts: Any) -> None:
        """Add facts to this start."""
        self._start |= facts

    def add_worker(self, worker: Mapping[str, Any]) -> None:
        """Add a worker process of this start."""
        self._workers.append({"start": len(self._earlier), **worker})

    def write(self, timeline: Mapping[str, Any], trained: bool) -> None:
        """Write the file.

        Args:
            timeline: The times of this start so far.
            trained: Whether it has trained students.
        """
        self._start |= {"timeline": dict(timeline), "trained": trained}
        starts = [*self._earlier, self._start]
        shown = next((start for start in reversed(starts) if start.get("trained")), self._start)
        write_json(self._path, shown | {"starts": starts, "workers": self._workers})


def _earlier(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The starts and workers in a file; one that is damaged, or missing, has none."""
    try:
        found = read_json(path)
    except SweepDirError:
        return [], []
    if not isinstance(found.get("starts"), list):  # version 0.1.0 recorded one start
        stages = (found.get("timeline") or {}).get("stages") or {}
        return [found | {"trained": any(name != "prepare" for name in stages)}], []
    return found["starts"], list(found.get("workers") or [])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Model name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
