"""Runs one sweep from end to end on the Ray that is installed, and checks which one that is.

python tests/oldest_ray.py 2.55.1
"""

from __future__ import annotations

import sys
import tempfile
from importlib import metadata

import kdsweep

SWEEP = {
    "name": "oldest",
    "dataset": {"name": "mnist_mini", "subset": 600, "val_fraction": 0.5},
    "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
    "student": {"model": "mnist_student"},
    "space": {"method": ["kd", "none"], "width": 0.25, "lr": {"loguniform": [1e-3, 1e-2]}},
    "train": {"epochs": 4},
    "search": {"trials": 4},
    "confirm": {"top": 1, "seeds": 2},
}


def main(version: str) -> None:
    """Raise an error if anything differs from what is expected."""
    # Not from Ray itself: imported before kdsweep, it would let each worker build the environment of `uv run` again.
    found = metadata.version("ray")
    assert found == version, f"Ray {found}, not {version}"
    with tempfile.TemporaryDirectory(prefix="kds-") as storage:
        results = kdsweep.run(SWEEP | {"storage": storage}, "local")
        assert len(results.trials) == 4
        assert set(results.trials["state"]) <= {"COMPLETE", "PRUNED"}
        assert len(results.confirmed) == 1
    print(f"one sweep on Ray {version}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
