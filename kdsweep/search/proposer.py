"""Proposes new configurations: Optuna's samplers over the known trials.

Proposals are drawn in a separate in-memory study. Only accepted ones are written to the sweep's journal, so that a
duplicate can be drawn again without leaving a trace.

A sampler's cost grows with its history, and a worker waits for each proposal. So it sees only the best and the latest
finished trials; the journal keeps all of them.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Container, Hashable, Mapping, Sequence

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from kdsweep.distributions import Config
from kdsweep.search.baseline import PlainShare, is_plain, size_of
from kdsweep.search.pareto import Archive
from kdsweep.search.samplers import Sampler
from kdsweep.search.section import SearchSection, sampler_of
from kdsweep.search.space import SearchSpace
from kdsweep.search.stopping.base import Value
from kdsweep.seeds import derived_seed, digest_of

ATTEMPTS = 20
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
        objectives: Number of objectives.

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
        objectives: int = 1,
    ):
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._recent = recent
        self._objectives = objectives
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._all = History(space, recent, objectives)
        self._tried: set[str] = set()
        listed = list(self._sampler.listed(space))
        self._given = [*points, *(config for config in listed if config not in points)]
        self.limit = min(trials, len(self._given)) if listed else trials
        # A sampler that lists its configurations tries all of them.
        self._share = PlainShare(space, 0.0 if listed else plain_share)
        self._plain: dict[Hashable, History] = {}
        self._plain_sampler = with_startup(sampler, 1 / self._share.sizes)

    @classmethod
    def of(
        cls, search: SearchSection, space: SearchSpace, seed: int, recent: int = RECENT, objectives: int = 1
    ) -> Proposer:
        """Create the proposer of a sweep."""
        share = search.plain_share
        return cls(sampler_of(search), space, seed, search.trials, search.points, share, recent, objectives)

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

    def tell(self, config: Config, state: TrialState, values: Sequence[Value]) -> None:
        """Record how a trial ended.

        Args:
            config: The trial's configuration.
            state: The final state, as an Optuna state.
            values: The best score so far after each epoch; higher is better. One score for each of several objectives.
        """
        for history in self._histories(config):
            history.tell(config, state, values)

    def recall(self, config: Config) -> None:
        """Restore a trial proposed in an earlier session."""
        if digest_of(config) not in self._tried:
            for history in self._histories(config):
                history.add(config)
        self._note(config)

    def _note(self, config: Config) -> None:
        self._tried.add(digest_of(config))
        self._share.note(config)

    def _draw(self, number: int, attempt: int) -> tuple[History, optuna.Trial, Config]:
        """Draw from the history of all trials, or a plain trial from the history of its width if one is due."""
        if number < len(self._given):
            return self._all, *self._all.draw(self._given[number], self._drawn_by(self._sampler, number, attempt))
        plain = self._share.owed()
        if not plain:
            trial, config = self._all.draw({}, self._drawn_by(self._sampler, number, attempt))
            plain = self._share.before(config)
            if not plain:
                return self._all, trial, config
            self._all.reject(trial)
        history = self._plain_history(plain)
        return history, *history.draw(plain, self._drawn_by(self._plain_sampler, number, attempt))

    def _histories(self, config: Config) -> list[History]:
        """Return the histories that a configuration belongs to."""
        return [self._all, self._plain_history(config)] if self._share.active and is_plain(config) else [self._all]

    def _plain_history(self, config: Config) -> History:
        return self._plain.setdefault(
            size_of(self._space, config), History(self._space, self._recent, self._objectives)
        )

    def _drawn_by(self, sampler: Sampler, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        seed = derived_seed(self._seed, "sampler", number, attempt) % 2**32
        # A sampler may keep proposing what it knows is good. Random draws find the rest of a small space.
        return optuna.samplers.RandomSampler(seed=seed) if attempt > ATTEMPTS // 2 else sampler.drawn_by(seed)


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
        objectives: Number of objectives.
    """

    def __init__(self, space: SearchSpace, recent: int, objectives: int = 1):
        self._space = space
        self._several = objectives > 1
        self._study = optuna.create_study(storage=BoundedMemory(recent), directions=["maximize"] * objectives)
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

    def tell(self, config: Config, state: TrialState, values: Sequence[Value]) -> None:
        """Record how a trial ended; see `Proposer.tell`."""
        trial = self._open.pop(digest_of(config), None)
        if trial is None:
            return  # tried twice; Optuna already has its result
        if self._several:
            self._tell_several(trial, state, values)
            return
        if values:
            trial.report(values[-1], len(values))  # type: ignore[arg-type]
        self._study.tell(trial, values[-1] if state is TrialState.COMPLETE else None, state=state)

    def _tell_several(self, trial: optuna.Trial, state: TrialState, values: Sequence[Value]) -> None:
        """Record a stopped trial as complete: Optuna keeps no intermediate values of several objectives.

        The trials that stopped it have its costs and better values, so samplers do not mistake it for a good one.
        """
        if state is TrialState.FAIL or not values:
            self.reject(trial)
        else:
            self._study.tell(trial, values[-1], state=TrialState.COMPLETE)


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
        self._front = Archive()  # with several objectives

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
            if values is not None and len(values) > 1:
                self._front.add(trial_id, values)
            else:
                insort(self._best, (_rank(self.get_trial(trial_id)), trial_id))
            insort(self._latest, trial_id)
            del self._best[BEST:], self._latest[: -self._recent]
        return changed

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the visible trials, by number. Never copies them: no caller here asks for copies."""
        remembered = self._open.union(
            self._latest, (trial_id for _, trial_id in self._best), self._front.least_crowded(BEST)
        )
        trials = [self.get_trial(trial_id) for trial_id in sorted(remembered)]
        return [trial for trial in trials if states is None or trial.state in states]


def _rank(trial: FrozenTrial) -> tuple[float, ...]:
    """Rank finished trials as TPE does: complete ones by value, then pruned ones by epoch reached, then by value."""
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None
        return (0, 0, -trial.value)
    epoch, value = max(trial.intermediate_values.items(), default=(0, 0.0))
    return (1, -epoch, -value)
