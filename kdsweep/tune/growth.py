"""How many lanes are asked for: a fixed number, or more and more on a cluster whose autoscaler adds nodes."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Protocol

from kdsweep.tune.agenda import Agenda
from kdsweep.tune.cluster import Share
from kdsweep.tune.work import Wait, Work

# Lanes that are asked for beyond those that run, at least; a cluster with more lanes than that may double at once.
AHEAD = 8
# Lanes that are not needed are asked for no more after this time: work often follows in a moment.
IDLE_SECONDS = 10.0


class Lanes(Protocol):
    """The lanes of a cluster."""

    def may_begin(self) -> bool:
        """Whether to hand out further work."""

    def begin(self, trial_id: str) -> Work | None:
        """Return work for a lane, which has the name `trial_id`; None at the end."""

    def end(self, trial_id: str, lost: bool) -> None:
        """Note that a piece of work has ended, and whether its lane was lost."""

    def look(self, running: Mapping[str, Work], pending: Collection[str]) -> int:
        """Note which work runs and which waits for a place.

        Returns:
            How many lanes that have no place yet are not needed.
        """


def lanes_of(agenda: Agenda, part: Share) -> Lanes:
    """Return the lanes of a sweep."""
    return GrowingLanes(agenda, part) if part.most > part.slots else FixedLanes(agenda, part.slots)


class FixedLanes:
    """A fixed number of lanes. Work is handed out to each, whether it has a place or not.

    Args:
        agenda: The work to do.
        lanes: Number of lanes.
    """

    def __init__(self, agenda: Agenda, lanes: int):
        self._agenda = agenda
        self._lanes = lanes
        self._busy: set[str] = set()

    def may_begin(self) -> bool:
        """Whether a lane is free."""
        return len(self._busy) < self._lanes

    def begin(self, trial_id: str) -> Work | None:
        """Return the agenda's next work."""
        work = self._agenda.next()
        if work is not None:
            self._busy.add(trial_id)
        return work

    def end(self, trial_id: str, lost: bool) -> None:
        """Mark the lane as free."""
        self._busy.discard(trial_id)

    def look(self, running: Mapping[str, Work], pending: Collection[str]) -> int:
        """Return 0: every lane is needed."""
        return 0


class GrowingLanes:
    """Lanes on a cluster that grows: each lane that has no place yet is what makes the autoscaler start a node.

    Such a lane waits, and gets a trial only when it runs, so that trials are proposed with all results known by then.
    More lanes than the nodes of the beginning have places for are asked for only while every lane has work.

    Args:
        agenda: The work to do.
        part: Places on the nodes of the beginning, and the most that the sweep has work for.
    """

    def __init__(self, agenda: Agenda, part: Share):
        self._agenda = agenda
        self._part = part
        self._busy: set[str] = set()
        self._placed: set[str] = set()
        self._running: Mapping[str, Work] = {}
        self._free = 0
        self._needed = time.monotonic()

    def may_begin(self) -> bool:
        """Whether a lane that runs is free, or another one is to be asked for."""
        return len(self._busy) < self._part.most and (self._free > 0 or self._asked < self._wanted)

    def begin(self, trial_id: str) -> Work | None:
        """Return the next work for a free lane; a new lane waits."""
        if not self._free:
            self._busy.add(trial_id)
            return self._agenda.wait()
        self._free -= 1
        work = self._agenda.next()
        if work is not None:
            self._busy.add(trial_id)
        return work

    def end(self, trial_id: str, lost: bool) -> None:
        """Mark the lane as free, unless it never had a place or is lost."""
        self._busy.discard(trial_id)
        if trial_id in self._placed and not lost:
            self._free += 1
        self._placed.discard(trial_id)

    def look(self, running: Mapping[str, Work], pending: Collection[str]) -> int:
        """Return how many lanes to ask for no more. The autoscaler may then remove nodes that are idle."""
        self._placed |= running.keys()
        self._running = running
        self._agenda.resize(len(running) + self._free)
        more = len(pending) - self._wanted
        now = time.monotonic()
        if more <= 0:
            self._needed = now
        return more if more > 0 and now - self._needed > IDLE_SECONDS else 0

    @property
    def _asked(self) -> int:
        return len(self._busy) - len(self._running)

    @property
    def _wanted(self) -> int:
        """How many lanes without a place are wanted."""
        count = len(self._running)
        there = max(0, self._part.slots - count)
        if not count:
            return max(1, there)
        if any(work.alone or isinstance(work, Wait) for work in self._running.values()):
            return there
        return min(max(AHEAD, count, there), self._part.most - count)
