"""What GPUs of unequal speed cost when each free lane takes the next piece of work, by simulation.

python benchmarks/uneven.py       without and with moving work to idle lanes, against a plan that knows all durations
"""

from __future__ import annotations

import argparse
import heapq
import random

from measure import arguments, report, shown, spread

EPOCHS, RUNGS, FACTOR = 20, (3, 9), 3  # as ASHA with grace_epochs 3
# Lanes on each kind of GPU, by the speed of one: relative to the fastest.
CLUSTERS = {
    "4 lanes, 4 at half the speed": [1.0] * 4 + [0.5] * 4,
    "4 lanes, 4 at a quarter": [1.0] * 4 + [0.25] * 4,
    "16 lanes, 16 at half the speed": [1.0] * 16 + [0.5] * 16,
    "16 lanes, 16 at a quarter": [1.0] * 16 + [0.25] * 16,
}


def main() -> None:
    """Simulate a search and a confirmation on each cluster."""
    parser = arguments(__doc__.splitlines()[0], "uneven")
    parser.set_defaults(repeats=200)
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    rows, figures = [], {}
    for name, speeds in CLUSTERS.items():
        row: dict[str, object] = {"lanes": name}
        for what, lengths in (("search", search), ("confirm", confirmation)):
            for how, moves in (("", False), (", moved", True)):
                losses = [loss(lengths(random.Random(seed), options), speeds, moves) for seed in range(options.repeats)]
                figures[f"{name}, {what}{how}"] = spread(losses)
                row[f"{what}{how}, %"] = shown(figures[f"{name}, {what}{how}"], 0)
        rows.append(row)
    title = f"{options.trials} trials of {EPOCHS} epochs with ASHA: how much longer than with a plan"
    report(title, rows, {"percent": figures}, options.out)


def search(draw: random.Random, options: argparse.Namespace) -> list[float]:
    """Lengths of trials on the fastest GPU: of each three, one goes on at a rung; widths make it two times as long."""
    lengths = []
    for _ in range(options.trials):
        stops = next((rung for rung in RUNGS if draw.random() > 1 / FACTOR), EPOCHS)
        lengths.append(stops * draw.choice((1.0, 1.4, 2.0)))
    return lengths


def confirmation(draw: random.Random, options: argparse.Namespace) -> list[float]:
    """Trainings of full length."""
    return [EPOCHS * draw.choice((1.0, 1.4, 2.0)) for _ in range(18)]


def loss(lengths: list[float], speeds: list[float], moves: bool) -> float:
    """Percentage by which the end is later than with the better of both plans."""
    taken = in_turn(lengths, speeds, moves)
    return 100 * (taken / min(planned(lengths, speeds), planned(sorted(lengths, reverse=True), speeds)) - 1)


def in_turn(lengths: list[float], speeds: list[float], moves: bool) -> float:
    """When the last piece ends if whichever lane is free takes the next one.

    Args:
        lengths: Of the pieces, on the fastest lane.
        speeds: Of the lanes.
        moves: Whether a lane for which there is no further work takes over that of the lane that would end last, if
            that one is slower: what kdsweep does. A move costs half an epoch, and waits for the end of one.
    """
    waiting = list(reversed(lengths))
    ends: list[tuple[float, int]] = []
    end = 0.0
    for number in range(len(speeds)):
        if waiting:
            ends.append((waiting.pop() / speeds[number], number))
    heapq.heapify(ends)
    while ends:
        now, free = heapq.heappop(ends)
        end = now
        if waiting:
            heapq.heappush(ends, (now + waiting.pop() / speeds[free], free))
        elif moves and ends:
            last, slow = max(ends)
            left = (last - now) * speeds[slow]
            moved = now + (1 / speeds[slow] if left > 1 else 0) + (max(0, left - 1) + 0.5) / speeds[free]
            if speeds[slow] < speeds[free] and moved < last:
                ends.remove((last, slow))
                ends.append((moved, free))
                heapq.heapify(ends)
    return end


def planned(lengths: list[float], speeds: list[float]) -> float:
    """When the last piece ends if each waits for the lane on which it ends first. Needs to know all lengths."""
    free = [0.0] * len(speeds)
    for length in lengths:
        best = min(range(len(speeds)), key=lambda number: free[number] + length / speeds[number])
        free[best] += length / speeds[best]
    return max(free)


if __name__ == "__main__":
    main()
