"""Asynchronous successive halving."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from kdsweep.distributions import RandInt
from kdsweep.params import Param
from kdsweep.search.stopping.base import STOPPING_RULES, StoppingRule, Value


@STOPPING_RULES.declare
class ASHA(StoppingRule):
    """Asynchronous successive halving: at each rung, the top 1/reduction_factor of each group continues.

    Trials are compared only within their group; otherwise wide students would always stop narrow ones. The first rung
    is at grace_epochs, and each later rung is at reduction_factor times the previous one.

    Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934 (the stopping form).
    """

    name = "asha"
    several_objectives = True
    grace_epochs = Param(0, "the first rung; 0 is a ninth of the budget, rounded up", valid=RandInt(0, 1_000_000))
    reduction_factor = Param(
        3,
        "the top 1/reduction_factor of each group continues; also the ratio between rungs",
        valid=RandInt(2, 1_000_000),
    )

    def __init__(self, epochs: int, **params: Any):
        super().__init__(epochs, **params)
        self._values: dict[tuple[Hashable, int], dict[str, Value]] = {}
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

    def reached(self, group: Hashable, key: str, epoch: int, value: Value) -> bool:
        """Stop a trial that is not in the top `1 / reduction_factor` of the trials that have reached this rung.

        The number that continues is rounded and at least one. The trial itself counts, so the first trial at a rung
        continues. A trial that reaches a rung again after an interruption is not judged again.
        """
        if epoch not in self._milestones:
            return False
        values = self._values.setdefault((group, epoch), {})
        if key in values:
            return False
        values[key] = value
        places = max(1, round(len(values) / self.reduction_factor))
        return self.ahead(values, key) >= places
