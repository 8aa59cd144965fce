"""What a replay has found by when, as regret: the distance from the best true accuracy, in points.

The incumbent of a width is the trial with the best accuracy seen so far at any epoch. Its regret is the best true
accuracy at that width minus the incumbent's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from replay.curves import PLAIN, Curves
from replay.workers import Epoch

NEAR = 0.2
OVERALL = "overall"


def measured(
    epochs: Iterable[Epoch], curves: Curves, widths: Sequence[float], last: int, checkpoints: Mapping[str, int]
) -> dict[str, Any]:
    """Measure a replay.

    Args:
        epochs: The finished epochs.
        curves: What the replay was based on.
        widths: The widths.
        last: The last epoch of a complete trial.
        checkpoints: Number of epochs after which regret is measured, by name.

    Returns:
        `regret` and `plain_regret` by checkpoint and width, in points; `near`: the number of epochs until an incumbent
        within `NEAR` points, by width, None if never; numbers of trials and epochs, of those of plain students, and
        simulated hours. Regret before the first trial of a width is that of an accuracy of 0.
    """
    goals = {(width, plain): curves.best(width, plain) for width in widths for plain in (False, True)}
    leaders: dict[tuple[float, bool], Epoch] = {}
    outcome: dict[str, Any] = {"regret": {}, "plain_regret": {}, "near": dict.fromkeys(map(str, widths))}
    trials: dict[str, bool] = {}
    count = plain_epochs = complete = 0
    hours = 0.0

    def regrets(plain: bool) -> dict[str, float]:
        lost = {
            str(width): points(goals[width, plain] - (leaders[width, plain].true if (width, plain) in leaders else 0))
            for width in widths
        }
        seen = [leaders[width, plain] for width in widths if (width, plain) in leaders]
        top = max(seen, key=lambda epoch: epoch.value).true if seen else 0.0
        return lost | {OVERALL: points(max(goals[width, plain] for width in widths) - top)}

    for count, epoch in enumerate(epochs, start=1):
        width, is_plain = float(epoch.config["width"]), epoch.config["method"] == PLAIN
        hours = epoch.hours
        trials.setdefault(epoch.key, is_plain)
        plain_epochs += is_plain
        complete += epoch.number == last
        for plain in {False, is_plain}:
            if (width, plain) not in leaders or epoch.value > leaders[width, plain].value:
                leaders[width, plain] = epoch
        if outcome["near"][str(width)] is None and points(goals[width, False] - leaders[width, False].true) <= NEAR:
            outcome["near"][str(width)] = count
        for name, at in checkpoints.items():
            if count == at:
                outcome["regret"][name] = regrets(plain=False)
                outcome["plain_regret"][name] = regrets(plain=True)
    return outcome | {
        "trials": len(trials), "plain_trials": sum(trials.values()), "complete": complete, "epochs": count,
        "plain_epochs": plain_epochs, "hours": round(hours, 4),
    }  # fmt: skip


def points(difference: float) -> float:
    """Convert a difference of accuracies to points."""
    return round(100 * difference, 4)
