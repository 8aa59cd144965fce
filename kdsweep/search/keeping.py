"""Which trials keep their weights."""

from __future__ import annotations

from kdsweep.search.baseline import is_plain, size_of
from kdsweep.search.objectives import Objectives
from kdsweep.search.plan import Plan, budget_of
from kdsweep.search.section import KEPT_WEIGHTS
from kdsweep.search.space import SearchSpace
from kdsweep.search.trial import Trial
from kdsweep.storage.following import discard, discard_folder
from kdsweep.storage.paths import SweepDir


class KeptWeights:
    """The ended trials whose weights are on disk.

    Args:
        spec: The sweep's settings.
        sweep: The sweep directory.
        space: The space, whose widths are compared.
        objectives: The objectives.

    Attributes:
        trials: The trials.
    """

    def __init__(self, spec: Plan, sweep: SweepDir, space: SearchSpace, objectives: Objectives):
        self.trials: list[Trial] = []
        self._spec, self._sweep, self._space, self._objectives = spec, sweep, space, objectives

    def restore(self, ended: list[Trial]) -> None:
        """Take the trials that ended in an earlier session; delete nothing."""
        self.trials = self._worth_keeping(ended)

    def end(self, trial: Trial) -> None:
        """Delete the state of a trial that has ended, and all weights that are no longer worth keeping."""
        folder = self._sweep.trial(trial.key)
        discard(folder.state, folder.hang)
        before = [*self.trials, trial]
        self.trials = self._worth_keeping(before)
        for other in before:
            if other not in self.trials:
                self.drop(other)

    def drop(self, trial: Trial) -> None:
        """Delete all files of a trial."""
        discard_folder(self._sweep.trial(trial.key).root)

    def _worth_keeping(self, trials: list[Trial]) -> list[Trial]:
        best = self._spec.search.keep_weights
        if self._objectives.several:
            return self._objectives.worth_keeping(trials, best)
        return worth_keeping(trials, self._spec, self._space, best)


def worth_keeping(trials: list[Trial], plan: Plan, space: SearchSpace, best: int = KEPT_WEIGHTS) -> list[Trial]:
    """Return the trials whose weights are kept.

    These are the `best` best ones, each further one that is smaller than all better ones, and the best complete
    plain trial of each width.

    Args:
        trials: Ended trials.
        plan: The sweep's settings.
        space: The space, whose widths are compared.
        best: Number of best trials, `search.keep_weights`.
    """
    # Optuna may have a trial whose epochs were lost; rank it last.
    ranked = sorted(trials, key=lambda trial: (not trial.values, -plan.goal.score(trial.best), trial.number))
    kept = ranked[:best]
    smallest = min((trial.parameters for trial in kept), default=0)
    for trial in ranked[best:]:
        if trial.parameters < smallest:
            kept.append(trial)
            smallest = trial.parameters
    plain = (trial for trial in ranked if is_plain(trial.config))
    complete = [trial for trial in plain if len(trial.values) >= budget_of(plan, trial.config)]
    tuned = {size_of(space, trial.config): trial for trial in reversed(complete)}
    return kept + [trial for trial in tuned.values() if trial not in kept]
