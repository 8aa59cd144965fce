"""A trial as the study knows it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from kdsweep.distributions import Config
from kdsweep.search.objectives import Scores


class State(StrEnum):
    """State of a trial."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"


STATE_WORDS = {
    State.COMPLETE: "complete",
    State.PRUNED: "stopped early",
    State.FAILED: "failed",
    State.RUNNING: "running",
}


@dataclass
class Trial:
    """A trial: one configuration and its results so far.

    Attributes:
        number: Optuna's trial number, counted from 0 in the order proposed.
        key: Unique name: the number and a hash of the configuration.
        config: The configuration.
        values: The best value of the first objective so far, after each finished epoch.
        parameters: Parameter count of the student.
        train_seconds: Training time so far.
        paused_at: The last epoch at which it paused; 0 if it never did.
        until: It does not pause up to this epoch, because it was promoted.
        scores: With several objectives, the scores of the best epoch so far, after each finished epoch.
        where: `node` and `device` of its last report; empty before.
    """

    number: int
    key: str
    config: Config
    values: list[float] = field(default_factory=list)
    parameters: int = 0
    train_seconds: float = 0.0
    paused_at: int = 0
    until: int = 0
    scores: list[Scores] = field(default_factory=list)
    where: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> float:
        """The best value of the objective so far; NaN before the first epoch."""
        return self.values[-1] if self.values else math.nan
