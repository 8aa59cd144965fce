"""The sections `search`, `scheduler` and `objective` of a sweep file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from kdsweep.section import Count, Section
from kdsweep.tasks import Goal


class SearchSection(Section):
    """How configurations are proposed.

    Attributes:
        sampler: Optuna's TPE, random, or every combination of a space of choices.
        trials: How many; `grid` ends earlier when the space does.
        startup_trials: Random ones before TPE begins.
        points: Configurations tried first; what one leaves out is drawn.
    """

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    trials: Count = 64
    startup_trials: Annotated[int, Field(ge=0)] = 16
    points: list[dict[str, Any]] = Field(default_factory=list)


class SchedulerSection(Section):
    """When a trial is stopped early.

    Attributes:
        name: Asynchronous successive halving, or none.
        grace_epochs: The first rung; 0 is a ninth of the budget.
        reduction_factor: Of so many trials at a rung, one goes on.
        group_by: Trials are compared within groups of equal values.
    """

    name: Literal["asha", "none"] = "asha"
    grace_epochs: Annotated[int, Field(ge=0)] = 0
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    group_by: list[str] = Field(default_factory=lambda: ["width"])


class ObjectiveSection(Section):
    """What is best.

    Attributes:
        metric: A metric of the task on the validation split, or the user's own `package.module:name`.
        mode: Whether its largest or smallest value is best; `auto` is what the metric declares.
    """

    metric: str = Goal.metric
    mode: Literal["auto", "max", "min"] = "auto"
