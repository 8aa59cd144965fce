"""An in-memory Optuna storage with a bounded view, because a sampler's cost grows with its history."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from copy import copy
from itertools import islice
from typing import Any

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from kdsweep.search.pareto import Archive
from kdsweep.search.turns import BestAtEpochs

BEST = 25  # TPE never counts more than 25 trials as good, however long its history
RUNNING = 100  # latest running trials that samplers see: with thousands, a proposal would cost as much as a training


class BoundedMemory(InMemoryStorage):
    """In-memory Optuna storage that shows samplers a bounded number of running and of finished trials.

    Paused trials are shown as pruned ones. The visible finished trials are the `BEST` best and the `recent` latest by
    trial number; with several objectives, the best are the least crowded of the front. The visible running trials are
    the `RUNNING` latest. The visible trials do not depend on the order in which results arrived, so a resumed sweep
    sees the same ones as an uninterrupted one.

    Args:
        recent: Number of latest finished trials to show.
        group_of: Show values relative to the best at the same epoch of the trials for whose parameters this returns the
            same, and rank by them; None to show them as they are.
    """

    def __init__(self, recent: int, group_of: Callable[[Mapping[str, Any]], Hashable] | None = None):
        super().__init__()
        self._recent = recent
        self._group_of = group_of
        self._open: dict[int, None] = {}  # in order
        self._paused: dict[int, FrozenTrial] = {}
        self._ranked: dict[Hashable, list[tuple[tuple[float, ...], int]]] = {}
        self._by_number: list[int] = []
        self._front = Archive()  # with several objectives
        self._best = BestAtEpochs()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial and mark it as running."""
        trial_id = super().create_new_trial(study_id, template_trial)
        self._open[trial_id] = None
        return trial_id

    def pause(self, trial_id: int, value: float, epoch: int) -> None:
        """Show a running trial as pruned at an epoch with this value, in place of what was shown before."""
        self._hide(trial_id)
        shown = copy(self.get_trial(trial_id))
        shown.state, shown.intermediate_values = TrialState.PRUNED, {epoch: value}
        self._paused[trial_id] = shown
        self._show(trial_id, shown)

    def note_values(self, trial_id: int, values: Sequence[float]) -> None:
        """Record a trial's values after each epoch, to which others are relative."""
        if self._group_of is not None:
            self._best.note(self._group(self.get_trial(trial_id)), values)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set a trial's state. A finished trial stays visible while it is among the best or the latest."""
        changed = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            self._hide(trial_id)
        if state in (TrialState.COMPLETE, TrialState.PRUNED):
            self._show(trial_id, self.get_trial(trial_id))
        return changed

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the visible trials, by number. Never copies them: no caller here asks for copies."""
        # Within a group, values rank the same as relative ones.
        best = [self._shown(trial_id) for ranked in self._ranked.values() for _, trial_id in ranked[:BEST]]
        best.sort(key=lambda trial: (rank(trial), trial.number))
        shown = {trial._trial_id: trial for trial in best[:BEST]}
        front = self._front.least_crowded(BEST)
        running = islice(reversed(self._open), RUNNING)
        others = {*running, *self._by_number[-self._recent :], *front} - shown.keys()
        shown |= {trial_id: self._shown(trial_id) for trial_id in others}
        trials = [shown[trial_id] for trial_id in sorted(shown)]
        return [trial for trial in trials if states is None or trial.state in states]

    def _shown(self, trial_id: int) -> FrozenTrial:
        trial = self._paused.get(trial_id) or self.get_trial(trial_id)
        if self._group_of is None or not trial.state.is_finished() or not trial.intermediate_values:
            return trial
        group, ((epoch, value),) = self._group(trial), trial.intermediate_values.items()
        shown, relative = copy(trial), self._best.relative(group, epoch, value)
        shown.intermediate_values = {epoch: relative}
        if trial.state is TrialState.COMPLETE:
            shown.values = [relative]
        return shown

    def _group(self, trial: FrozenTrial) -> Hashable:
        return self._group_of(trial.params) if self._group_of is not None else None

    def _show(self, trial_id: int, trial: FrozenTrial) -> None:
        if trial.values is not None and len(trial.values) > 1:
            self._front.add(trial_id, trial.values)
        else:
            insort(self._ranked.setdefault(self._group(trial), []), (rank(trial), trial_id))
        insort(self._by_number, trial_id)

    def _hide(self, trial_id: int) -> None:
        self._open.pop(trial_id, None)
        if (shown := self._paused.pop(trial_id, None)) is not None:
            self._ranked[self._group(shown)].remove((rank(shown), trial_id))
            self._by_number.remove(trial_id)


def rank(trial: FrozenTrial) -> tuple[float, ...]:
    """Rank finished trials as TPE does: complete ones by value, then pruned ones by epoch reached, then by value."""
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None
        return (0, 0, -trial.value)
    epoch, value = max(trial.intermediate_values.items(), default=(0, 0.0))
    return (1, -epoch, -value)
