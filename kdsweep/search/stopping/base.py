"""The base class of stopping rules."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from kdsweep.params import Declared, Parts


class StoppingRule(Declared):
    """Decides which trials to stop early.

    A subclass declares its parameters as `Param` attributes and implements `reached`. Parameters named `grace_epochs`
    or `reduction_factor` take their values from the keys of the same name under `scheduler` in the sweep file.

    A resumed sweep replays all reports to a new rule in the order they arrived, so decisions may depend only on the
    reports. `kdsweep.testing.StoppingRuleContract` tests this and the other requirements.

    A rule that sets `promotes` pauses trials instead of stopping them, and also implements `promotable`. A paused trial
    keeps its state. Trials that are still paused at the end of the search are stopped.

    Args:
        epochs: The full budget.
        params: Values of the declared parameters.
    """

    kind = "scheduler"
    promotes: ClassVar[bool] = False

    def __init__(self, epochs: int, **params: Any):
        self.epochs = epochs
        super().__init__(**params)

    @property
    def milestones(self) -> Sequence[int]:
        """The epochs after which a trial may be stopped, increasing and below the budget. Default: every epoch.

        A worker trains from one milestone to the next without asking, so fewer milestones are cheaper.
        """
        return range(1, self.epochs)

    def reached(self, group: Hashable, key: str, epoch: int, value: float) -> bool:
        """Record a trial's result and return whether to stop it, or to pause it if the rule promotes.

        Called after each epoch; must return False at an epoch that is not a milestone. An interrupted trial may reach
        an epoch again. It was already judged there, so it must not be stopped there.

        Args:
            group: Trials are compared only within the same group.
            key: The trial's key.
            epoch: The epoch just finished, counted from 1.
            value: The best value of the objective so far; higher is better.
        """
        raise NotImplementedError

    def compared_in(self, group: Hashable) -> Hashable:
        """Return the same value for all groups whose trials are compared with each other. Default: the group itself.

        A promoting search trains at least one trial to the end for each value.
        """
        return group

    def note_width(self, key: str, width: float) -> None:
        """Receive a trial's width before `reached`, if widths are drawn from a real-valued range.

        Trials of all widths are then in the same group. Default: do nothing.
        """

    def promotable(self) -> Iterator[str]:
        """Yield the keys of the paused trials that may continue now, the one to continue first first.

        Only called if `promotes` is set. A trial that was promoted but has not reported since may still be yielded, and
        so may one that was stopped at the end of an earlier search; the study skips both.
        """
        yield from ()


STOPPING_RULES: Parts[StoppingRule] = Parts(StoppingRule, "kdsweep.search.stopping")
