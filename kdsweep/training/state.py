"""The resumable state of a training run, in memory and as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsweep.lazy import torch
from kdsweep.storage import weights

Tensors = Mapping[str, "torch.Tensor"]
PARTS = ("student", "method", "best", "optimizer", "average")


@dataclass
class RunState:
    """Everything that a run needs to go on, alone or in a cohort.

    Attributes:
        student: The student's state dict.
        method: The method's state dict.
        best: The weights of the best epoch; empty before the first epoch.
        optimizer: The optimizer's state dict.
        average: The moving average of the weights; empty if none is kept.
        history: The result of each epoch.
        best_value: The best value of the objective.
        best_epoch: Its epoch.
        averaged_steps: Number of steps in the average.
    """

    student: Tensors
    method: Tensors
    best: Tensors
    optimizer: Tensors
    average: Tensors
    history: list[dict[str, float]]
    best_value: float
    best_epoch: int
    averaged_steps: int

    def write(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        tensors = {f"{part}/{name}": tensor for part in PARTS for name, tensor in getattr(self, part).items()}
        counters = {"best_value": self.best_value, "best_epoch": self.best_epoch, "history": self.history}
        counters["averaged_steps"] = self.averaged_steps
        weights.save(tensors, path, {"kdsweep": json.dumps(counters)})

    @classmethod
    def read(cls, path: Path) -> RunState:
        """Read a state onto the CPU.

        Raises:
            CheckpointError: If the file is unreadable.
            KeyError: If something is missing.
            ValueError: If the counters are damaged.
        """
        tensors = weights.load(path)
        counters = json.loads(weights.metadata(path)["kdsweep"])
        return cls(
            **{part: _under(part, tensors) for part in PARTS},
            history=list(counters["history"]),
            best_value=best_value(counters),
            best_epoch=int(counters["best_epoch"]),
            averaged_steps=int(counters.get("averaged_steps", 0)),
        )


def best_value(counters: Mapping[str, Any]) -> float:
    """Read the best objective value from a saved state's metadata. Version 0.1.0 supported only accuracy."""
    return float(counters["best_value"] if "best_value" in counters else counters["best_accuracy"])


def _under(prefix: str, tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}
