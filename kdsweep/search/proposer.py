"""Proposes new configurations: Optuna's samplers over the known trials.

Proposals are drawn in a separate in-memory study. Only accepted ones are written to the sweep's journal, so that a
duplicate can be drawn again without leaving a trace.

A sampler's cost grows with its history, and a worker waits for each proposal. So it sees only the best and the latest
finished trials; the journal keeps all of them.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Container, Hashable, Mapping, Sequence
from copy import copy

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from kdsweep.distributions import Config
from kdsweep.search.baseline import PlainShare, is_plain, size_of
from kdsweep.search.samplers import Sampler
from kdsweep.search.section import SearchSection, sampler_of
from kdsweep.search.space import SearchSpace
from kdsweep.search.turns import BestAtEpochs, WidthTurns
from kdsweep.seeds import derived_seed, digest_of

ATTEMPTS = 20
REDRAWS = 6  # for the width that is due
BEST = 25  # TPE never counts more than 25 trials as good, however long its history
RECENT = 250


class Proposer:
    """Draws configurations. A draw depends only on its number and the results so far, also after a restart.

    The plain trials that `plain_share` demands are drawn per width, from the history of the plain trials of that width
    alone. The history of all trials would draw settings that suit distillation.

    Args:
        sampler: The sampler.
        space: The search space.
        seed: Seed of the sweep.
        trials: Number of trials.
        points: Configurations to try first; missing values are drawn.
        plain_share: Plain trials per width, as a multiple of those of the best-served method.
        recent: Number of latest finished trials that the sampler sees in addition to the best.
        balance: Whether widths are drawn in turn and compared by the best result of each.

    Attributes:
        limit: Number of trials in total: fewer than `trials` if the sampler lists fewer configurations.
    """

    def __init__(
        self,
        sampler: Sampler,
        space: SearchSpace,
        seed: int,
        trials: int,
        points: Sequence[Config] = (),
        plain_share: float = 0.0,
        recent: int = RECENT,
        balance: bool = False,
    ):
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._recent = recent
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._all = History(space, recent, balance)
        self._tried: set[str] = set()
        listed = list(self._sampler.listed(space))
        self._given = [*points, *(config for config in listed if config not in points)]
        self.limit = min(trials, len(self._given)) if listed else trials
        # A sampler that lists its configurations tries all of them.
        self._share = PlainShare(space, 0.0 if listed else plain_share)
        self._turns = WidthTurns(space, balance)
        self._plain: dict[Hashable, History] = {}
        self._plain_sampler = with_startup(sampler, 1 / self._share.sizes)

    @classmethod
    def of(cls, search: SearchSection, space: SearchSpace, seed: int, recent: int = RECENT) -> Proposer:
        """Create the proposer of a sweep."""
        balance = search.balance == "width"
        return cls(sampler_of(search), space, seed, search.trials, search.points, search.plain_share, recent, balance)

    def propose(self, number: int) -> Config:
        """Return a configuration, avoiding those already tried for up to `ATTEMPTS` draws.

        Args:
            number: Number of configurations proposed before.
        """
        for attempt in range(ATTEMPTS):
            history, trial, config = self._draw(number, attempt)
            if digest_of(config) not in self._tried or attempt == ATTEMPTS - 1:
                break
            history.reject(trial)
        history.accept(config, trial)
        for other in self._histories(config):
            if other is not history:
                other.add(config)
        self._note(config)
        return config

    def tell(self, config: Config, state: TrialState, values: Sequence[float]) -> None:
        """Record how a trial ended.

        Args:
            config: The trial's configuration.
            state: The final state, as an Optuna state.
            values: The best score so far after each epoch; higher is better.
        """
        for history in self._histories(config):
            history.tell(config, state, values)

    def pause(self, config: Config, values: Sequence[float]) -> None:
        """Show the sampler a paused trial as one stopped at this epoch, until it pauses again or ends.

        Args:
            config: The trial's configuration.
            values: As for `tell`.
        """
        for history in self._histories(config):
            history.pause(config, values)

    def recall(self, config: Config) -> None:
        """Restore a trial proposed in an earlier session."""
        if digest_of(config) not in self._tried:
            for history in self._histories(config):
                history.add(config)
        self._note(config)

    def _note(self, config: Config) -> None:
        self._tried.add(digest_of(config))
        self._share.note(config)
        self._turns.note(config)

    def _draw(self, number: int, attempt: int) -> tuple[History, optuna.Trial, Config]:
        """Draw from the history of all trials, or a plain trial from the history of its width if one is due."""
        if number < len(self._given):
            return self._all, *self._all.draw(self._given[number], self._drawn_by(self._sampler, number, attempt))
        plain = self._share.owed()
        if not plain:
            trial, config = self._draw_due(number, attempt)
            plain = self._share.before(config)
            if not plain:
                return self._all, trial, config
            self._all.reject(trial)
        history = self._plain_history(plain)
        return history, *history.draw(plain, self._drawn_by(self._plain_sampler, number, attempt))

    def _draw_due(self, number: int, attempt: int) -> tuple[optuna.Trial, Config]:
        """Draw a configuration of the width that is due.

        Draws of other widths are discarded, because a sampler that is given one value draws the others as if it had
        chosen another one. If the sampler avoids the width, it is given.
        """
        due = self._turns.due()
        trial, config = self._all.draw({}, self._drawn_by(self._sampler, number, attempt))
        for redraw in range(1, REDRAWS + 1):
            if not due or config["width"] == due["width"]:
                break
            self._all.reject(trial)
            given = due if redraw == REDRAWS else {}
            trial, config = self._all.draw(given, self._drawn_by(self._sampler, number, attempt, redraw))
        return trial, config

    def _histories(self, config: Config) -> list[History]:
        """Return the histories that a configuration belongs to."""
        return [self._all, self._plain_history(config)] if self._share.active and is_plain(config) else [self._all]

    def _plain_history(self, config: Config) -> History:
        return self._plain.setdefault(size_of(self._space, config), History(self._space, self._recent))

    def _drawn_by(self, sampler: Sampler, number: int, *attempts: int) -> optuna.samplers.BaseSampler:
        seed = derived_seed(self._seed, "sampler", number, *attempts) % 2**32
        # A sampler may keep proposing what it knows is good. Random draws find the rest of a small space.
        return optuna.samplers.RandomSampler(seed=seed) if attempts[0] > ATTEMPTS // 2 else sampler.drawn_by(seed)


def with_startup(sampler: Sampler, factor: float) -> Sampler:
    """Return a copy of a sampler with a multiple of its random trials, if it has any."""
    values = {name: getattr(sampler, name) for name in sampler.params()}
    if "startup_trials" in values:
        values["startup_trials"] = int(values["startup_trials"] * factor)
    return type(sampler)(**values)


class History:
    """An in-memory Optuna study, which proposals are drawn from.

    Args:
        space: The search space.
        recent: Number of latest finished trials that samplers see in addition to the best.
        balance: Whether samplers see values relative to the best of the same width.
    """

    def __init__(self, space: SearchSpace, recent: int, balance: bool = False):
        self._space = space
        self._memory = BoundedMemory(recent, "width" if balance else "")
        self._study = optuna.create_study(storage=self._memory, direction="maximize")
        self._open: dict[str, optuna.Trial] = {}

    def draw(self, given: Mapping[str, object], sampler: optuna.samplers.BaseSampler) -> tuple[optuna.Trial, Config]:
        """Draw the settings that are not given; the caller must accept or reject the draw."""
        self._study.sampler = sampler
        if given:
            self._study.enqueue_trial(self._space.optuna_params(dict(given)))  # type: ignore[arg-type]
        trial = self._study.ask()
        return trial, self._space.suggest(trial)

    def accept(self, config: Config, trial: optuna.Trial) -> None:
        """Make a draw a running trial."""
        self._open[digest_of(config)] = trial

    def reject(self, trial: optuna.Trial) -> None:
        """Hide a draw from samplers."""
        self._study.tell(trial, state=TrialState.FAIL)

    def add(self, config: Config) -> None:
        """Add a configuration drawn elsewhere, as a running trial."""
        # Every value is given, so there is nothing to draw.
        self.accept(config, self.draw(config, optuna.samplers.RandomSampler(seed=0))[0])

    def pause(self, config: Config, values: Sequence[float]) -> None:
        """Show a paused trial to samplers; see `Proposer.pause`."""
        trial = self._open.get(digest_of(config))
        if trial is not None and values:
            self._memory.note_values(trial._trial_id, values)
            self._memory.pause(trial._trial_id, values[-1], len(values))

    def tell(self, config: Config, state: TrialState, values: Sequence[float]) -> None:
        """Record how a trial ended; see `Proposer.tell`."""
        trial = self._open.pop(digest_of(config), None)
        if trial is None:
            return  # tried twice; Optuna already has its result
        if values:
            trial.report(values[-1], len(values))
        if state is not TrialState.FAIL:
            self._memory.note_values(trial._trial_id, values)
        self._study.tell(trial, values[-1] if state is TrialState.COMPLETE else None, state=state)


class BoundedMemory(InMemoryStorage):
    """In-memory Optuna storage that shows samplers the running trials and a bounded number of finished ones.

    Paused trials are shown as pruned ones. The visible finished trials are the `BEST` best and the `recent` latest by
    trial number. They do not depend on the order in which results arrived, so a resumed sweep sees the same trials as
    an uninterrupted one.

    Args:
        recent: Number of latest finished trials to show.
        group_by: Show values relative to the best at the same epoch of the trials with the same value of this
            parameter, and rank by them; empty to show them as they are.
    """

    def __init__(self, recent: int, group_by: str = ""):
        super().__init__()
        self._recent = recent
        self._group_by = group_by
        self._open: set[int] = set()
        self._paused: dict[int, FrozenTrial] = {}
        self._ranked: dict[Hashable, list[tuple[tuple[float, ...], int]]] = {}
        self._by_number: list[int] = []
        self._best = BestAtEpochs()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial and mark it as running."""
        trial_id = super().create_new_trial(study_id, template_trial)
        self._open.add(trial_id)
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
        if self._group_by:
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
        best.sort(key=lambda trial: (_rank(trial), trial.number))
        shown = {trial._trial_id: trial for trial in best[:BEST]}
        others = self._open.union(self._by_number[-self._recent :]) - shown.keys()
        shown |= {trial_id: self._shown(trial_id) for trial_id in others}
        trials = [shown[trial_id] for trial_id in sorted(shown)]
        return [trial for trial in trials if states is None or trial.state in states]

    def _shown(self, trial_id: int) -> FrozenTrial:
        trial = self._paused.get(trial_id) or self.get_trial(trial_id)
        if not self._group_by or not trial.state.is_finished() or not trial.intermediate_values:
            return trial
        group, ((epoch, value),) = self._group(trial), trial.intermediate_values.items()
        shown, relative = copy(trial), self._best.relative(group, epoch, value)
        shown.intermediate_values = {epoch: relative}
        if trial.state is TrialState.COMPLETE:
            shown.values = [relative]
        return shown

    def _group(self, trial: FrozenTrial) -> Hashable:
        return trial.params.get(self._group_by)

    def _show(self, trial_id: int, trial: FrozenTrial) -> None:
        insort(self._ranked.setdefault(self._group(trial), []), (_rank(trial), trial_id))
        insort(self._by_number, trial_id)

    def _hide(self, trial_id: int) -> None:
        self._open.discard(trial_id)
        if (shown := self._paused.pop(trial_id, None)) is not None:
            self._ranked[self._group(shown)].remove((_rank(shown), trial_id))
            self._by_number.remove(trial_id)


def _rank(trial: FrozenTrial) -> tuple[float, ...]:
    """Rank finished trials as TPE does: complete ones by value, then pruned ones by epoch reached, then by value."""
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None
        return (0, 0, -trial.value)
    epoch, value = max(trial.intermediate_values.items(), default=(0, 0.0))
    return (1, -epoch, -value)
