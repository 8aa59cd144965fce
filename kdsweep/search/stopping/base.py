"""The contract of a stopping rule: after which epochs it looks at a trial, and which it stops."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from kdsweep.params import Declared, Parts

if TYPE_CHECKING:
    from kdsweep.search.plan import Plan


class StoppingRule(Declared):
    """Says which trials are not worth going on with.

    A subclass declares its parameters as `Param` attributes and computes `reached`. Parameters called `grace_epochs`
    or `reduction_factor` get the values of these keys of a sweep file's `scheduler`.

    A resumed sweep tells a fresh rule everything again in the order of arrival, so what a rule says may depend only on
    what it was told. `kdsweep.testing.StoppingRuleContract` checks this and what else is asked here.

    Args:
        epochs: The full budget.
        params: Values of the declared parameters.
    """

    kind = "scheduler"

    def __init__(self, epochs: int, **params: Any):
        self.epochs = epochs
        super().__init__(**params)

    @property
    def milestones(self) -> Sequence[int]:
        """The epochs, rising and below the budget, after which it may stop a trial; all of them unless said.

        A worker trains from one to the next without asking, so few are cheaper than many.
        """
        return range(1, self.epochs)

    def reached(self, group: Hashable, key: str, epoch: int, value: float) -> bool:
        """Note what a trial reached, and say whether it stops.

        Called after each epoch; after one that is no milestone, the answer must be no. An interrupted trial may reach
        an epoch again: it was judged there, and is not stopped there.

        Args:
            group: Trials are compared with those of an equal group only.
            key: The trial.
            epoch: Which it has done, from 1.
            value: The best value of the objective so far; more is better.
        """
        raise NotImplementedError


STOPPING_RULES: Parts[StoppingRule] = Parts(StoppingRule, "kdsweep.search.stopping")


def rule_of(plan: Plan) -> StoppingRule:
    """A fresh rule for a sweep."""
    name, params = plan.scheduler.part(STOPPING_RULES, plan.scheduler.name)
    return STOPPING_RULES.create(name, plan.train.epochs, **params)
