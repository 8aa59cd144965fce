"""Successive halving: the parameters and rungs that its rules share."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from kdsweep.distributions import Choice, RandInt
from kdsweep.params import SWITCH, Param
from kdsweep.search.stopping.base import StoppingRule, Value
from kdsweep.search.stopping.ranking import AdjustedRung, FrontRung, PlainRung, Rung

# Where the first rung is if `grace_epochs` is 0: name -> function of the budget.
FIRST_RUNGS: dict[str, Callable[[int], int]] = {
    "ninth": lambda epochs: math.ceil(epochs / 9),
    "eighteenth": lambda epochs: max(1, epochs // 18),
}


def first_rung(default: str) -> Param[str]:
    """Declare where the first rung is if `grace_epochs` is 0."""
    return Param(
        default,
        "the first rung if grace_epochs is 0: a ninth of the budget, rounded up, or an eighteenth, rounded down",
        valid=Choice(tuple(FIRST_RUNGS)),
    )


class Halving(StoppingRule):
    """The parameters and rungs of successive halving.

    The first rung is at grace_epochs, and each later rung is at reduction_factor times the previous one.
    """

    grace_epochs = Param(0, "the first rung; 0 is the part of the budget in first_rung", valid=RandInt(0, 1_000_000))
    reduction_factor = Param(
        3,
        "the top 1/reduction_factor of each group continues; also the ratio between rungs",
        valid=RandInt(2, 1_000_000),
    )
    first_rung = first_rung("ninth")
    pooled = Param(
        False, "compare the trials of all groups with each other, by value minus the mean of the group", valid=SWITCH
    )

    def __init__(self, epochs: int, **params: Any):
        super().__init__(epochs, **params)
        self._milestones = []
        milestone = self.grace_epochs or FIRST_RUNGS[self.first_rung](epochs)
        while milestone < epochs:
            self._milestones.append(milestone)
            milestone *= self.reduction_factor
        self._rungs: dict[int, dict[Hashable, Rung]] = {epoch: {} for epoch in self._milestones}
        self._widths: dict[str, float] = {}

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

    def compared_in(self, group: Hashable) -> Hashable:
        return "pooled" if self.pooled else group

    def note_width(self, key: str, width: float) -> None:
        self._widths[key] = width

    def enter(self, group: Hashable, key: str, epoch: int, value: Value) -> Rung | None:
        """Add a trial to the rung at this epoch and return the rung; None if it is not a rung or not its first time."""
        if epoch not in self._rungs:
            return None
        rungs, compared_in = self._rungs[epoch], self.compared_in(group)
        if compared_in not in rungs:
            rungs[compared_in] = self._new_rung(key, value)
        rung = rungs[compared_in]
        if key in rung:
            return None
        rung.enter(key, value, group, math.log(self._widths.get(key, 1.0)))
        return rung

    def _new_rung(self, key: str, value: Value) -> Rung:
        if isinstance(value, tuple):
            return FrontRung()
        return AdjustedRung() if self.pooled or key in self._widths else PlainRung()
