"""Which trials keep their weights."""

from __future__ import annotations

from kdsweep.search.baseline import is_plain, size_of
from kdsweep.search.section import KEPT_WEIGHTS
from kdsweep.search.space import SearchSpace
from kdsweep.search.trial import Trial
from kdsweep.tasks import Goal


def worth_keeping(
    trials: list[Trial], goal: Goal, space: SearchSpace, epochs: int, best: int = KEPT_WEIGHTS
) -> list[Trial]:
    """Return the trials whose weights are kept.

    These are the `best` best ones, each further one that is smaller than all better ones, and the best complete
    plain trial of each width.

    Args:
        trials: Ended trials.
        goal: The objective.
        space: The space, whose widths are compared.
        epochs: Epochs of a complete trial.
        best: Number of best trials, `search.keep_weights`.
    """
    # Optuna may have a trial whose epochs were lost; rank it last.
    ranked = sorted(trials, key=lambda trial: (not trial.values, -goal.score(trial.best), trial.number))
    kept = ranked[:best]
    smallest = min((trial.parameters for trial in kept), default=0)
    for trial in ranked[best:]:
        if trial.parameters < smallest:
            kept.append(trial)
            smallest = trial.parameters
    complete = [trial for trial in ranked if is_plain(trial.config) and len(trial.values) >= epochs]
    tuned = {size_of(space, trial.config): trial for trial in reversed(complete)}
    return kept + [trial for trial in tuned.values() if trial not in kept]
