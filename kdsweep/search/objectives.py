"""Several objectives of a sweep: the scores of its trials, and which of them are worth keeping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from kdsweep.search import pareto
from kdsweep.tasks import Goal
from kdsweep.tasks.metrics import Direction

Scores = tuple[float, ...]


class Scored(Protocol):
    """A trial: its number, and the scores of its best epoch so far after each epoch."""

    number: int
    scores: list[Scores]


T = TypeVar("T", bound=Scored)


class Objectives:
    """The objectives of a sweep, the first of which picks each trial's best epoch.

    Args:
        goals: The objectives, in the order of the sweep file.
    """

    def __init__(self, goals: Sequence[Goal]):
        self._goals = goals

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self._goals) > 1

    @property
    def directions(self) -> list[Direction]:
        """The directions in Optuna's terms."""
        return [goal.direction for goal in self._goals]

    @property
    def columns(self) -> tuple[str, ...]:
        """The objectives' columns in the log of epochs."""
        return tuple(goal.column for goal in self._goals)

    def note(self, scores: list[Scores], metrics: Mapping[str, Any]) -> None:
        """Append the scores after an epoch: those of the best epoch so far by the first objective.

        Args:
            scores: The scores after each earlier epoch; those of a repeated epoch are dropped.
            metrics: `epoch` and every objective.
        """
        del scores[int(metrics["epoch"]) - 1 :]
        found = tuple(goal.score(float(metrics[goal.column])) for goal in self._goals)
        scores.append(scores[-1] if scores and not found[0] > scores[-1][0] else found)

    def values(self, scores: Scores) -> list[float]:
        """Return the values that have these scores."""
        return [goal.score(score) for goal, score in zip(self._goals, scores, strict=True)]

    def worth_keeping(self, trials: Sequence[T], least: int) -> list[T]:
        """Return the trials of the front, and the next best up to `least`, best first."""
        measured = [trial for trial in trials if trial.scores]
        scores = [trial.scores[-1] for trial in measured]
        if not measured:
            return list(trials)[:least]
        ranked = [measured[place] for place in pareto.order(scores, [[trial.number for trial in measured]])]
        on_front = int((pareto.ranks(scores) == 0).sum())
        return ranked[: max(least, on_front)]
