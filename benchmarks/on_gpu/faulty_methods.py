"""Methods whose trials fail on a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from kdsweep.methods import Method, Outputs
from kdsweep.registry import load_user_object


def read_out_of_range() -> None:
    """Read where there is nothing. The assertion of the kernel breaks the GPU for this process."""
    torch.zeros(1, device="cuda")[torch.full((1,), 5, device="cuda")]


class Simple(Method):
    """Does something in every step."""

    formula = "0"
    source = "this benchmark"
    needs = frozenset({"logits"})

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Return 0 for every batch, after the fault."""
        self.act()
        return 0 * student.logits.float().sum()

    def act(self) -> None:
        raise NotImplementedError


class BreaksTwice(Simple):
    """Breaks the GPU once in the probe and once in the trial."""

    def act(self) -> None:
        folder = Path(os.environ["FAULTS_FOLDER"])
        been = folder / "broken.txt"
        processes = been.read_text().split() if been.exists() else []
        if len(processes) < 2:
            been.write_text(" ".join([*processes, str(os.getpid())]))
            load_user_object((folder / "breaks.txt").read_text(), "function")()


class Greedy(Simple):
    """Takes 60 % of the GPU for a moment."""

    def act(self) -> None:
        torch.empty(int(0.6 * _all_bytes()), dtype=torch.uint8, device="cuda")


class TooGreedy(Simple):
    """Takes more than there is, in pieces."""

    def act(self) -> None:
        _ = [torch.empty(_all_bytes() // 10, dtype=torch.uint8, device="cuda") for _ in range(11)]


def _all_bytes() -> int:
    return int(torch.cuda.get_device_properties(0).total_memory)
