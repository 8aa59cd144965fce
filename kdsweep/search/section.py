"""The sections `search`, `scheduler` and `objective` of a sweep file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from kdsweep.search.samplers.tpe import TPE
from kdsweep.search.stopping.asha import ASHA
from kdsweep.section import Count, PartName, Section
from kdsweep.tasks import Goal


class SearchSection(Section):
    """How configurations are proposed.

    Attributes:
        sampler: See `kdsweep samplers`; it gets the values of the keys that it declares.
        trials: How many; `grid` ends earlier when the space does.
        startup_trials: Random ones before TPE begins.
        points: Configurations tried first; what one leaves out is drawn.
    """

    sampler: PartName = "tpe"
    trials: Count = 64
    startup_trials: Annotated[int, Field(ge=0)] = TPE.startup_trials.default
    points: list[dict[str, Any]] = Field(default_factory=list)


class SchedulerSection(Section):
    """When a trial is stopped early.

    Attributes:
        name: The stopping rule, see `kdsweep schedulers`; it gets the values of the keys that it declares.
        grace_epochs: The first rung; 0 is a ninth of the budget.
        reduction_factor: The top 1/reduction_factor of each group continues.
        group_by: Trials are compared within groups of equal values.
    """

    name: PartName = "asha"
    grace_epochs: Annotated[int, Field(ge=0)] = ASHA.grace_epochs.default
    reduction_factor: Annotated[int, Field(ge=2)] = ASHA.reduction_factor.default
    group_by: list[str] = Field(default_factory=lambda: ["width"])


class ObjectiveSection(Section):
    """What is best.

    Attributes:
        metric: A metric of the task on the validation split, or the user's own `package.module:name`.
        mode: Whether its largest or smallest value is best; `auto` is what the metric declares.
    """

    metric: str = Goal.metric
    mode: Literal["auto", "max", "min"] = "auto"
