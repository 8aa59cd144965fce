"""The part of a sweep file that the search needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kdsweep.search.section import SchedulerSection, SearchSection
from kdsweep.search.stopping import STOPPING_RULES, StoppingRule
from kdsweep.tasks import Goal
from kdsweep.training.section import TrainSpec


class Plan(Protocol):
    """The part of a `SweepSpec` that the search reads."""

    @property
    def name(self) -> str:
        """Name of the sweep."""

    @property
    def seed(self) -> int:
        """Seed of the sweep."""

    @property
    def train(self) -> TrainSpec:
        """How each student is trained; `epochs` is the full budget."""

    @property
    def search(self) -> SearchSection:
        """How configurations are proposed."""

    @property
    def scheduler(self) -> SchedulerSection:
        """When trials are stopped early."""

    @property
    def goal(self) -> Goal:
        """The first objective."""

    @property
    def goals(self) -> Sequence[Goal]:
        """The objectives."""


def rule_of(plan: Plan) -> StoppingRule:
    """Create the stopping rule of a sweep."""
    name, params = plan.scheduler.part(STOPPING_RULES, plan.scheduler.name)
    return STOPPING_RULES.create(name, plan.train.epochs, **params)
