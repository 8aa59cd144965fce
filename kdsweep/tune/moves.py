"""Moves work from a slow lane to a faster one for which there is no other work, as at the end of a stage.

Which lane is faster is measured: the shortest epoch of each shape of work on each kind of device.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from kdsweep.tune.work import Wait, Work

FASTER = 1.5  # how much faster a lane must be; devices of one kind differ by less
COST_SECONDS = 10.0  # of a move: saving the state, loading it, setting up
# How long the slow lane may take to save the state, and then the fast one to take the work; afterwards any lane does.
SAVE_SECONDS, TAKE_SECONDS = 60.0, 10.0
COMPARED = 200  # shapes of work by which two devices are compared, the latest ones

Kind = tuple[Any, Any]  # node and device


@dataclass
class Move:
    """A move whose work has left its slow lane.

    Attributes:
        work: The work.
        process: The process that it has left.
        kind: The kind of device that takes it.
        until: When any lane may take it.
        saved: Whether that process has saved its state, which it does before it begins other work.
    """

    work: Work
    process: str
    kind: Kind
    until: float
    saved: bool = False


class Moves:
    """Decides which work moves, and keeps it from the time when it has left one lane until another one takes it."""

    def __init__(self) -> None:
        self._shortest: dict[Hashable, dict[Kind, float]] = {}  # seconds of an epoch by shape and kind of device
        self._at: dict[str, tuple[Kind, int]] = {}  # where running work is, and its latest epoch
        self._takers: dict[str, tuple[str, Kind]] = {}  # the idle lane that will take work, by the work's name
        self._moving: list[Move] = []
        self._moved: set[str] = set()

    def note(self, work: Work, report: Mapping[str, Any]) -> None:
        """Learn from a report where work is, how far, and how long its epochs take."""
        for move in self._moving:
            if not move.saved and move.process == report.get("process") and work.name != move.work.name:
                move.saved, move.until = True, time.monotonic() + TAKE_SECONDS
        epochs = [one for one in report.get("epochs", ()) if "epoch" in one and "seconds" in one]
        if not work.epochs or not epochs:
            return
        kind = _kind(report)
        known = self._shortest.setdefault(work.shape, {})
        known[kind] = min([known.get(kind, float("inf")), *(float(one["seconds"]) for one in epochs)])
        self._at[work.name] = kind, int(epochs[-1]["epoch"])

    def ask(self, lane: Work, report: Mapping[str, Any], running: Iterable[Work]) -> None:
        """Look for work that an idle lane should take over: what would end earliest compared with now.

        Args:
            lane: What the idle lane does.
            report: Its report.
            running: All work that other lanes do.
        """
        kind = _kind(report)
        takes = any(move.kind == kind for move in self._moving)
        if takes or any(name == lane.name for name, _ in self._takers.values()):
            return
        # It leaves after the epoch that it trains now.
        gains = {work.name: self._gain(work, kind, ahead=1) for work in running if work.name not in self._takers}
        best = max(gains, key=lambda name: gains[name], default=None)
        if best is not None and gains[best] > 0:
            self._takers[best] = lane.name, kind

    def leaves(self, work: Work, report: Mapping[str, Any]) -> bool:
        """Return whether work that has reported leaves its lane; it then is kept here."""
        _, kind = self._takers.pop(work.name, ("", None))
        if kind is None or self._gain(work, kind) <= 0:  # its last epoch may have been quicker
            return False
        work.moving = True
        self._moved.add(work.name)
        self._moving.append(Move(work, str(report.get("process")), kind, time.monotonic() + SAVE_SECONDS))
        return True

    def taken(self, report: Mapping[str, Any] | None = None) -> Work | None:
        """Return work that a lane takes over now.

        Args:
            report: Of the lane, if it is idle; without one, only work is returned that any lane may take.
        """
        now = time.monotonic()
        for move in self._moving:
            if now > move.until or (report is not None and move.saved and move.kind == _kind(report)):
                self._moving.remove(move)
                return move.work
        return None

    def ended(self, work: Work) -> None:
        """Forget work that has ended, or is lost; of a lane that waits no more, what it would have taken."""
        self._at.pop(work.name, None)
        self._takers.pop(work.name, None)
        self._takers = {name: taker for name, taker in self._takers.items() if taker[0] != work.name}

    def _gain(self, work: Work, kind: Kind, ahead: int = 0) -> float:
        """Return how much earlier work would end on a device, in seconds; 0 if that is not known.

        Args:
            work: The work.
            kind: The kind of device.
            ahead: After how many further epochs it would leave.
        """
        if isinstance(work, Wait) or work.alone or work.name in self._moved or work.name not in self._at:
            return 0.0
        here, epoch = self._at[work.name]
        faster = self._faster(kind, here)
        if faster < FASTER:
            return 0.0
        seconds = self._shortest[work.shape][here]
        left = work.epochs - epoch - ahead
        return left * seconds * (1 - 1 / faster) - COST_SECONDS

    def _faster(self, kind: Kind, other: Kind) -> float:
        """Return how much faster one device is than another; 0 if they had no work in common."""
        if kind == other:
            return 0.0
        latest = islice(reversed(self._shortest.values()), COMPARED)
        both = [known for known in latest if kind in known and other in known]
        return statistics.median(known[other] / known[kind] for known in both) if both else 0.0


def _kind(report: Mapping[str, Any]) -> Kind:
    return report.get("node"), report.get("device")
