"""The order of the trials at one rung, on which stopping rules and promotions are based."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LEAST_WIDTHS = 3  # fewer distinct widths do not show a trend


class Rung(Protocol):
    """The trials that have reached one rung and are compared with each other.

    Of equal values, the earlier one ranks higher.
    """

    def __len__(self) -> int: ...

    def __contains__(self, key: object) -> bool: ...

    def enter(self, key: str, value: float, group: Hashable, log_width: float) -> None:
        """Add a trial that has reached this rung for the first time.

        Args:
            key: The trial's key.
            value: Its best value so far; higher is better.
            group: The group it belongs to.
            log_width: Logarithm of its width, if widths are drawn from a real-valued range.
        """

    def admits(self, key: str, places: int) -> bool:
        """Whether the trial that has just entered continues.

        Better trials take places whether they continued or not. Equally good ones take a place only if they continued;
        otherwise of many equal trials only the first would continue.
        """

    def wait(self, key: str) -> None:
        """Let a trial wait for its promotion."""

    def leave(self, key: str) -> None:
        """Note that a waiting trial has gone on."""

    def promotable(self, places: int) -> Iterator[str]:
        """Yield the waiting trials that are among the best `places` of all, best first."""


class PlainRung:
    """Compares trials by their values. Sorted lists keep the cost per trial low in sweeps of thousands of trials."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, int]] = {}
        self._ranked: list[tuple[float, int]] = []
        self._waiting: list[tuple[float, int, str]] = []
        self._continued: Counter[float] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def enter(self, key: str, value: float, group: Hashable, log_width: float) -> None:
        self._entries[key] = entry = (-value, len(self._entries))
        insort(self._ranked, entry)

    def admits(self, key: str, places: int) -> bool:
        cost, _ = self._entries[key]
        better = bisect_left(self._ranked, (cost, -1))
        admitted = better + self._continued[cost] < places
        self._continued[cost] += admitted
        return admitted

    def wait(self, key: str) -> None:
        insort(self._waiting, (*self._entries[key], key))

    def leave(self, key: str) -> None:
        del self._waiting[bisect_left(self._waiting, (*self._entries[key], key))]

    def promotable(self, places: int) -> Iterator[str]:
        for cost, order, key in self._waiting:
            if bisect_left(self._ranked, (cost, order)) >= places:
                return
            yield key


class AdjustedRung:
    """Compares trials by their values minus what their group and their width explain.

    The explained part is the mean of the group so far, plus a slope times the logarithm of the width. The slope is the
    least-squares fit to the values so far, within groups. With fewer than three distinct widths it is 0.
    """

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self._values: list[float] = []
        self._log_widths: list[float] = []
        self._groups: list[int] = []
        self._numbers: dict[Hashable, int] = {}
        self._waiting: dict[str, int] = {}
        self._continued: list[int] = []
        self._adjusted: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: object) -> bool:
        return key in self._index

    def enter(self, key: str, value: float, group: Hashable, log_width: float) -> None:
        self._index[key] = len(self._index)
        self._values.append(value)
        self._log_widths.append(log_width)
        self._groups.append(self._numbers.setdefault(group, len(self._numbers)))
        self._adjusted = None

    def admits(self, key: str, places: int) -> bool:
        adjusted, index = self.adjusted(), self._index[key]
        better = int((adjusted > adjusted[index]).sum())
        equal = int((adjusted[self._continued] == adjusted[index]).sum())
        admitted = better + equal < places
        if admitted:
            self._continued.append(index)
        return admitted

    def wait(self, key: str) -> None:
        self._waiting[key] = self._index[key]

    def leave(self, key: str) -> None:
        del self._waiting[key]

    def promotable(self, places: int) -> Iterator[str]:
        waiting = {index: key for key, index in self._waiting.items()}
        best = np.argsort(-self.adjusted(), kind="stable")[:places]
        yield from [waiting[index] for index in best.tolist() if index in waiting]

    def adjusted(self) -> NDArray[np.float64]:
        """Return the adjusted values in order of arrival, rounded so that equal values stay equal."""
        if self._adjusted is None:
            values, log_widths = np.asarray(self._values), np.asarray(self._log_widths)
            values, distances = self._within_groups(values), self._within_groups(log_widths)
            spread = float(distances @ distances)
            trend = len(set(self._log_widths)) >= LEAST_WIDTHS and spread > 0
            slope = float(distances @ values) / spread if trend else 0.0
            self._adjusted = np.round(values - slope * distances, 12)
        return self._adjusted

    def _within_groups(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Subtract from each number the mean of its group."""
        groups = np.asarray(self._groups)
        means = np.bincount(groups, numbers) / np.bincount(groups)
        return np.asarray(numbers - means[groups])
