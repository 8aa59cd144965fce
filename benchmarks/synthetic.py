"""A synthetic student: accuracy as a function of settings and epoch, for search benchmarks without training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sweeps

from kdsweep import SweepSpec
from kdsweep.seeds import derived_seed

EPOCHS = 20
BEST = 0.9

# Each method's best accuracy, and its optimum: alpha, log10 of the learning rate, log2 of the temperature.
METHODS = {
    "none": (0.80, 0.0, -2.6, 0.0),
    "kd": (0.86, 0.7, -2.5, 2.0),
    "dkd": (BEST, 0.6, -2.8, 1.5),
    "dist": (0.88, 0.5, -2.3, 2.5),
    "at": (0.84, 0.3, -2.6, 0.0),
    "kd+at": (0.87, 0.4, -2.4, 3.0),
}


def spec_of(folder: Path, name: str, trials: int) -> SweepSpec:
    """A conditional space with six methods."""
    values = sweeps.tiny(folder, name, trials)
    values["space"] = {
        "method": list(METHODS),
        "width": {"choice": [0.25, 0.5, 1.0]},
        "temperature": {"loguniform": [1, 16]},
        "alpha": {"uniform": [0.05, 0.95]},
        "lr": {"loguniform": [3e-4, 1e-2]},
        "dkd": {"beta": {"uniform": [0.5, 8]}},
    }
    values["train"]["epochs"] = EPOCHS
    values["scheduler"] = {"name": "asha", "grace_epochs": 3}
    return sweeps.spec_of(values, folder)


def final_accuracy(config: Mapping[str, Any]) -> float:
    """Noise-free accuracy after the last epoch; it is `BEST` at the optimum of the best method and width 1."""
    ceiling, alpha, rate, temperature = METHODS[str(config["method"])]
    loss = 0.4 * (math.log10(float(config["lr"])) - rate) ** 2
    loss += 0.06 * (1 - float(config["width"]))
    if "alpha" in config:
        loss += 0.3 * (float(config["alpha"]) - alpha) ** 2
    if "temperature" in config:
        loss += 0.02 * (math.log2(float(config["temperature"])) - temperature) ** 2
    if "dkd.beta" in config:
        loss += 0.004 * (float(config["dkd.beta"]) - 2.0) ** 2
    return ceiling * math.exp(-loss / ceiling)


def accuracy(config: Mapping[str, Any], number: int, epoch: int) -> float:
    """Measured accuracy after an epoch: a curve rising to the final accuracy, with a little noise."""
    noise = (derived_seed(0, "noise", number, epoch) / 2**63 - 0.5) * 0.01
    return final_accuracy(config) * (1 - 0.6 * math.exp(-epoch / 4)) + noise
