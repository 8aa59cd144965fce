"""Asynchronous successive halving with promotions."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from kdsweep.search.stopping.base import STOPPING_RULES
from kdsweep.search.stopping.ranking import Rung
from kdsweep.search.stopping.rungs import Halving, first_rung


@STOPPING_RULES.declare
class ASHAPromotion(Halving):
    """Asynchronous successive halving: every trial pauses at a rung, the top 1/reduction_factor of each group go on.

    Whenever a worker is free, the best paused trial continues that is in the top 1/reduction_factor (rounded down) of
    the trials of its group at its rung, highest rung first. If there is none, a new trial starts.

    Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934 (algorithm 2).
    """

    name = "asha-promotion"
    promotes = True
    # A trial that was paused early by mistake can still go on, so it costs less to look early.
    first_rung = first_rung("eighteenth")

    def __init__(self, epochs: int, **params: Any):
        super().__init__(epochs, **params)
        self._waits_at: dict[str, Rung] = {}

    def reached(self, group: Hashable, key: str, epoch: int, value: float) -> bool:
        """Pause every trial that reaches a rung for the first time."""
        if key in self._waits_at:
            self._waits_at.pop(key).leave(key)
        rung = self.enter(group, key, epoch, value)
        if rung is None:
            return False
        rung.wait(key)
        self._waits_at[key] = rung
        return True

    def promotable(self) -> Iterator[str]:
        """Yield the trials in the top `1 / reduction_factor` of their rung and group, highest rung first."""
        for epoch in reversed(self._milestones):
            for rung in self._rungs[epoch].values():
                yield from rung.promotable(len(rung) // self.reduction_factor)
