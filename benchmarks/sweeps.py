"""The sweeps that the benchmarks run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import images
import numpy as np

import kdsweep
from kdsweep import SweepSpec


def tutorial(folder: Path, storage: Path, name: str, epochs: int) -> dict[str, Any]:
    """A sweep file over these images: kd from the tutorial's teacher into its student, no early stopping."""
    return {
        "name": name,
        "dataset": {"name": "images:load", "root": str(folder)},
        "teacher": {"model": "tutorial_teacher", "checkpoint": str(images.teacher_file(folder))},
        "student": {"model": "lightnn"},
        "space": {
            "method": ["kd"],
            "temperature": {"loguniform": [1, 16]},
            "alpha": {"uniform": [0.05, 0.95]},
            "lr": {"loguniform": [3e-4, 1e-2]},
        },
        "train": {"epochs": epochs, "batch_size": 128, "optimizer": "adam", "schedule": "constant"},
        "search": {"sampler": "random", "trials": 24},
        "scheduler": {"name": "none"},
        "confirm": {"top": 0},
        "storage": str(storage),
    }


def written(values: Mapping[str, Any], folder: Path) -> Path:
    """Write a sweep file to a folder."""
    path = folder / f"{values['name']}.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path


def spec_of(values: Mapping[str, Any], folder: Path) -> SweepSpec:
    """Validate a sweep file's values."""
    return kdsweep.load_spec(written(values, folder))


def configurations(count: int) -> list[dict[str, float]]:
    """The trials that every contender runs."""
    draw = np.random.default_rng(1)
    return [
        {
            "temperature": round(float(np.exp(draw.uniform(0, np.log(16)))), 4),
            "alpha": round(float(draw.uniform(0.05, 0.95)), 4),
            "lr": round(float(np.exp(draw.uniform(np.log(3e-4), np.log(1e-2)))), 6),
        }
        for _ in range(count)
    ]


def tiny(folder: Path, name: str, trials: int) -> dict[str, Any]:
    """One-epoch trials on a few digits."""
    return {
        "name": name,
        "dataset": {"name": "mnist_mini", "subset": 200, "val_fraction": 0.5},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        "student": {"model": "mnist_student"},
        "space": {
            "method": ["kd"],
            "width": 0.25,
            "temperature": {"loguniform": [1, 16]},
            "alpha": {"uniform": [0.05, 0.95]},
            "lr": {"loguniform": [3e-4, 1e-2]},
        },
        "train": {"epochs": 1, "batch_size": 100},
        "search": {"trials": trials},
        "confirm": {"top": 0},
        "storage": str(folder / "runs"),
    }
