"""Rungs, which the rules based on successive halving share."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdsweep.distributions import RandInt
from kdsweep.params import Param
from kdsweep.search.stopping.base import StoppingRule


class Halving(StoppingRule):
    """The parameters and rungs of successive halving.

    The first rung is at grace_epochs, and each later rung is at reduction_factor times the previous one.
    """

    grace_epochs = Param(0, "the first rung; 0 is a ninth of the budget, rounded up", valid=RandInt(0, 1_000_000))
    reduction_factor = Param(
        3,
        "the top 1/reduction_factor of each group continues; also the ratio between rungs",
        valid=RandInt(2, 1_000_000),
    )

    def __init__(self, epochs: int, **params: Any):
        super().__init__(epochs, **params)
        self._milestones = []
        milestone = self.grace_epochs or math.ceil(epochs / 9)
        while milestone < epochs:
            self._milestones.append(milestone)
            milestone *= self.reduction_factor

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """The first rung must be within the budget."""
        grace, epochs = values["grace_epochs"], values["epochs"]
        if grace > epochs:
            yield "grace_epochs", f"found {grace}; accepted: at most train.epochs ({epochs})"

    @property
    def milestones(self) -> Sequence[int]:
        """The rungs."""
        return self._milestones


class Rung:
    """The values of the trials that have reached one rung. Of equal values, the earlier one ranks higher."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, int]] = {}
        self._ranked: list[tuple[float, int]] = []
        self._waiting: list[tuple[float, int, str]] = []
        self._continued: Counter[float] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def enter(self, key: str, value: float) -> None:
        """Add a trial that has reached this rung for the first time."""
        self._entries[key] = entry = (-value, len(self._entries))
        insort(self._ranked, entry)

    def among_best(self, key: str, places: int) -> bool:
        """Whether a trial that has just entered continues.

        Better trials take places whether they continued or not. Equally good ones take a place only if they continued;
        otherwise of many equal trials only the first would continue.
        """
        cost, _ = self._entries[key]
        better = bisect_left(self._ranked, (cost, -1))
        continues = better + self._continued[cost] < places
        self._continued[cost] += continues
        return continues

    def wait(self, key: str) -> None:
        """Let a trial wait for its promotion."""
        insort(self._waiting, (*self._entries[key], key))

    def leave(self, key: str) -> None:
        """Note that a waiting trial has gone on."""
        del self._waiting[bisect_left(self._waiting, (*self._entries[key], key))]

    def promotable(self, places: int) -> Iterator[str]:
        """Yield the waiting trials that are among the best `places` of all, best first."""
        for cost, order, key in self._waiting:
            if bisect_left(self._ranked, (cost, order)) >= places:
                return
            yield key
