"""Balanced proposals: which size is due, and how good a result is for its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from kdsweep.distributions import Config
from kdsweep.search.baseline import is_plain
from kdsweep.search.space import SearchSpace


class WidthTurns:
    """Counts the proposals of each width, and tells which width is due: the one with the fewest.

    If students are searched, the widths of each student count separately.

    Plain trials do not count, as `PlainShare` sees to their number.

    Args:
        space: The search space.
        active: Whether to count; a space with one width or a real-valued range is never counted.
    """

    def __init__(self, space: SearchSpace, active: bool):
        self._sizes: list[Config] = []
        if active and space.finite_widths:
            for label, width in space.widths().items():
                self._sizes += [{**({"student": label} if label else {}), "width": value} for value in width.every()]
        self._sizes = self._sizes if len(self._sizes) > 1 else []
        self._proposed: Counter[Hashable] = Counter()

    def note(self, config: Config) -> None:
        """Count a proposed configuration."""
        if not is_plain(config):
            self._proposed[self._key(config)] += 1

    def due(self) -> Config:
        """Return the student and width that are due, as a configuration; empty if any will do."""
        return min(self._sizes, key=lambda size: self._proposed[self._key(size)], default={})

    @staticmethod
    def _key(config: Config) -> Hashable:
        return config.get("student"), config["width"]


class BestAtEpochs:
    """The best value of each group after each epoch, which makes values comparable across groups."""

    def __init__(self) -> None:
        self._best: dict[Hashable, list[float]] = {}

    def note(self, group: Hashable, values: Sequence[float]) -> None:
        """Record the values of a trial: the best so far after each epoch; higher is better."""
        best = self._best.setdefault(group, [])
        for epoch, value in enumerate(values):
            if epoch < len(best):
                best[epoch] = max(best[epoch], value)
            else:
                best.append(value)

    def relative(self, group: Hashable, epoch: int, value: float) -> float:
        """Return a value after an epoch, minus the group's best one. Not positive."""
        return value - self._best[group][epoch - 1]
