"""What the search needs to know of a sweep file."""

from __future__ import annotations

from typing import Protocol

from kdsweep.search.section import SchedulerSection, SearchSection
from kdsweep.tasks import Goal
from kdsweep.training.section import TrainSpec


class Plan(Protocol):
    """The part of a `SweepSpec` that a search follows."""

    @property
    def name(self) -> str:
        """Of the sweep."""

    @property
    def seed(self) -> int:
        """Of the sweep."""

    @property
    def train(self) -> TrainSpec:
        """How each student is trained; `epochs` is the full budget."""

    @property
    def search(self) -> SearchSection:
        """How configurations are proposed."""

    @property
    def scheduler(self) -> SchedulerSection:
        """When a trial is stopped early."""

    @property
    def goal(self) -> Goal:
        """What is best."""
