"""Asynchronous successive halving."""

from __future__ import annotations

from collections.abc import Hashable

from kdsweep.search.stopping.base import STOPPING_RULES
from kdsweep.search.stopping.rungs import Halving


@STOPPING_RULES.declare
class ASHA(Halving):
    """Asynchronous successive halving: at each rung, the top 1/reduction_factor of each group continues.

    Trials are compared only within their group; otherwise wide students would always stop narrow ones. The first rung
    is at grace_epochs, and each later rung is at reduction_factor times the previous one.

    Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934 (the stopping form).
    """

    name = "asha"

    def reached(self, group: Hashable, key: str, epoch: int, value: float) -> bool:
        """Stop a trial that is not in the top `1 / reduction_factor` of the trials that have reached this rung.

        The number that continues is rounded and at least one. The trial itself counts, so the first trial at a rung
        continues. A trial that reaches a rung again after an interruption is not judged again.
        """
        rung = self.enter(group, key, epoch, value)
        return rung is not None and not rung.admits(key, max(1, round(len(rung) / self.reduction_factor)))
