"""Which trials keep their weights."""

from __future__ import annotations

from kdsweep.search.baseline import is_plain, size_of
from kdsweep.search.space import SearchSpace
from kdsweep.search.trial import Trial
from kdsweep.tasks import Goal

KEPT_WEIGHTS = 10


def worth_keeping(trials: list[Trial], goal: Goal, space: SearchSpace, epochs: int) -> list[Trial]:
    """Return the trials whose weights are kept.

    These are the `KEPT_WEIGHTS` best, each further one that is smaller than all better ones, and the best complete
    plain trial of each width.

    Args:
        trials: Ended trials.
        goal: The objective.
        space: The space, whose widths are compared.
        epochs: Epochs of a complete trial.
    """
    # Optuna may have a trial whose epochs were lost; rank it last.
    ranked = sorted(trials, key=lambda trial: (not trial.values, -goal.score(trial.best), trial.number))
    kept = ranked[:KEPT_WEIGHTS]
    smallest = min((trial.parameters for trial in kept), default=0)
    for trial in ranked[KEPT_WEIGHTS:]:
        if trial.parameters < smallest:
            kept.append(trial)
            smallest = trial.parameters
    complete = [trial for trial in ranked if is_plain(trial.config) and len(trial.values) >= epochs]
    tuned = {size_of(space, trial.config): trial for trial in reversed(complete)}
    return kept + [trial for trial in tuned.values() if trial not in kept]
