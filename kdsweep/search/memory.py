"""An in-memory Optuna storage with a bounded view, because a sampler's cost grows with its history."""

from __future__ import annotations

from bisect import insort
from collections.abc import Container, Sequence

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

BEST = 25  # TPE never counts more than 25 trials as good, however long its history


class BoundedMemory(InMemoryStorage):
    """In-memory Optuna storage that shows samplers the running trials and a bounded number of finished ones.

    The visible finished trials are the `BEST` best and the `recent` latest by trial number. They do not depend on the
    order in which results arrived, so a resumed sweep sees the same trials as an uninterrupted one.

    Args:
        recent: Number of latest finished trials to show.
    """

    def __init__(self, recent: int):
        super().__init__()
        self._recent = recent
        self._open: set[int] = set()
        self._best: list[tuple[tuple[float, ...], int]] = []
        self._latest: list[int] = []

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial and mark it as running."""
        trial_id = super().create_new_trial(study_id, template_trial)
        self._open.add(trial_id)
        return trial_id

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set a trial's state. A finished trial stays visible while it is among the best or the latest."""
        changed = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            self._open.discard(trial_id)
        if state in (TrialState.COMPLETE, TrialState.PRUNED):
            insort(self._best, (rank(self.get_trial(trial_id)), trial_id))
            insort(self._latest, trial_id)
            del self._best[BEST:], self._latest[: -self._recent]
        return changed

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the visible trials, by number. Never copies them: no caller here asks for copies."""
        remembered = self._open.union(self._latest, (trial_id for _, trial_id in self._best))
        trials = [self.get_trial(trial_id) for trial_id in sorted(remembered)]
        return [trial for trial in trials if states is None or trial.state in states]


def rank(trial: FrozenTrial) -> tuple[float, ...]:
    """Rank finished trials as TPE does: complete ones by value, then pruned ones by epoch reached, then by value."""
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None
        return (0, 0, -trial.value)
    epoch, value = max(trial.intermediate_values.items(), default=(0, 0.0))
    return (1, -epoch, -value)
