"""Asynchronous successive halving: at each rung, of so many trials of a group one goes on.

Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934 (the stopping form).
"""

from __future__ import annotations

from collections.abc import Hashable

from kdsweep.search.plan import Plan


class Rungs:
    """What each trial had reached at each rung, and who goes on from there.

    A rung's value is the best score up to its epoch: the objective, or its negative where small values are best. Trials
    are compared within their group only, for a wide student would always stop a narrow one.

    Args:
        grace_epochs: The first rung.
        reduction_factor: Of so many trials, one goes on; also the ratio between rungs.
        epochs: The full budget, which is no rung.
    """

    def __init__(self, grace_epochs: int, reduction_factor: int, epochs: int):
        self._factor = reduction_factor
        self.milestones: list[int] = []
        milestone = grace_epochs
        while milestone < epochs:
            self.milestones.append(milestone)
            milestone *= reduction_factor
        self._values: dict[tuple[Hashable, int], dict[str, float]] = {}

    @classmethod
    def of(cls, spec: Plan) -> Rungs:
        """The rungs of a sweep; none where nothing stops a trial."""
        if spec.scheduler.name == "none":
            return cls(spec.train.epochs, spec.scheduler.reduction_factor, spec.train.epochs)
        return cls(spec.grace_epochs, spec.scheduler.reduction_factor, spec.train.epochs)

    def reached(self, group: Hashable, key: str, epoch: int, value: float) -> bool:
        """Note what a trial reached, and say whether it stops.

        The first at a rung goes on, and so does whoever is among the best `1 / reduction_factor` of those that came
        (rounded, at least one), itself included. A trial that comes to a rung again, after an interruption, is not
        judged again.

        Args:
            group: Whom it is compared with.
            key: The trial.
            epoch: Which it has done.
            value: The best score so far; higher is better.
        """
        if epoch not in self.milestones:
            return False
        values = self._values.setdefault((group, epoch), {})
        if key in values:
            return False
        values[key] = value
        places = max(1, round(len(values) / self._factor))
        return sum(other > value for other in values.values()) >= places

    def values(self, group: Hashable, epoch: int) -> dict[str, float]:
        """What the trials of a group had reached at a rung."""
        return dict(self._values.get((group, epoch), {}))
