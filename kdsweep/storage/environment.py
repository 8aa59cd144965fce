"""The environment of a sweep: versions, hardware and command line."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("kdsweep", "torch", "torchvision", "ray", "optuna", "numpy")


def describe_environment(command: Sequence[str]) -> dict[str, Any]:
    """Facts that a reader of the results may ask for.

    Args:
        command: The command line.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "command": list(command),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "gpus": [],
    }


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
