"""The part of a sweep file that the search needs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol

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
        """How each student is trained; `epochs` is the full budget, unless the space has budgets."""

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


def budget_of(plan: Plan, config: Mapping[str, Any]) -> int:
    """Return the epochs of a trial that is not stopped early."""
    return int(config.get("epochs", plan.train.epochs))


def rule_of(plan: Plan, epochs: int = 0) -> StoppingRule:
    """Create the stopping rule for the trials of one budget; by default of `train.epochs`."""
    name, params = plan.scheduler.part(STOPPING_RULES, plan.scheduler.name)
    return STOPPING_RULES.create(name, epochs or plan.train.epochs, **params)


class Rules:
    """The stopping rules of a sweep, one for each budget, so that only trials of equal budgets are compared.

    Args:
        plan: The sweep's settings.
    """

    def __init__(self, plan: Plan):
        self._plan = plan
        self._first = rule_of(plan)
        self._rules: dict[int, StoppingRule] = {}

    @property
    def promotes(self) -> bool:
        """Whether trials are paused instead of stopped."""
        return self._first.promotes

    def of(self, config: Mapping[str, Any]) -> StoppingRule:
        """Return the rule for the budget of a configuration."""
        epochs = budget_of(self._plan, config)
        if epochs not in self._rules:
            self._rules[epochs] = rule_of(self._plan, epochs)
        return self._rules[epochs]

    def promotable(self) -> Iterator[str]:
        """Yield the keys of the paused trials that may continue now, the smallest budget first."""
        for epochs in sorted(self._rules):
            yield from self._rules[epochs].promotable()

    def compared_in(self, group: Hashable, config: Mapping[str, Any]) -> Hashable:
        """Return the same value for all groups whose trials are compared with each other."""
        return budget_of(self._plan, config), self.of(config).compared_in(group)
