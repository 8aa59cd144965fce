"""No early stopping."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from kdsweep.search.stopping.base import STOPPING_RULES, StoppingRule, Value


@STOPPING_RULES.declare
class NoStopping(StoppingRule):
    """No early stopping: every trial gets the full budget."""

    name = "none"
    several_objectives = True

    @property
    def milestones(self) -> Sequence[int]:
        return ()

    def reached(self, group: Hashable, key: str, epoch: int, value: Value) -> bool:
        return False
