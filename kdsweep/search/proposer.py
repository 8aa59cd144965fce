"""Where new configurations come from: Optuna's samplers over the trials that are known.

Proposals are drawn in a study of their own, in memory, and only what is accepted goes into the sweep's journal: a
configuration that was tried already is drawn again without leaving a trace there.

A sampler's cost grows with the trials it sees, and a proposal is made while a worker waits. So it sees the best ended
trials and the latest ones only; the journal keeps all.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Container, Mapping, Sequence

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from kdsweep.distributions import Config
from kdsweep.search.samplers import Sampler, sampler_of
from kdsweep.search.section import SearchSection
from kdsweep.search.space import SearchSpace
from kdsweep.seeds import derived_seed, digest_of

ATTEMPTS = 20
BEST = 25  # however long its history is, TPE calls no more than 25 trials good
RECENT = 250


class Proposer:
    """Draws configurations; each draw depends on its number and on what was told before, also after a restart.

    Args:
        sampler: Proposes.
        space: What it draws from.
        seed: Of the sweep.
        trials: How many.
        points: Tried first; what one leaves out is drawn.
        recent: How many of the latest ended trials the sampler sees beside the best.

    Attributes:
        limit: How many there will be: fewer than `trials` where the sampler lists fewer.
    """

    def __init__(
        self,
        sampler: Sampler,
        space: SearchSpace,
        seed: int,
        trials: int,
        points: Sequence[Config] = (),
        recent: int = RECENT,
    ):
        self._space = space
        self._sampler = sampler
        self._seed = seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(storage=BoundedMemory(recent), direction="maximize")
        self._open: dict[str, optuna.Trial] = {}
        self._tried: set[str] = set()
        listed = list(self._sampler.listed(space))
        self._given = [*points, *(config for config in listed if config not in points)]
        self.limit = min(trials, len(self._given)) if listed else trials

    @classmethod
    def of(cls, search: SearchSection, space: SearchSpace, seed: int, recent: int = RECENT) -> Proposer:
        """The proposer of a sweep."""
        return cls(sampler_of(search), space, seed, search.trials, search.points, recent)

    def propose(self, number: int) -> Config:
        """A configuration that was not tried yet, where the space has one.

        Args:
            number: How many were proposed before.
        """
        given = self._given[number] if number < len(self._given) else {}
        for attempt in range(ATTEMPTS):
            trial, config = self._draw(given, self._drawn_by(number, attempt))
            identity = digest_of(config)
            if identity not in self._tried or attempt == ATTEMPTS - 1:
                break
            self._study.tell(trial, state=TrialState.FAIL)
        self._tried.add(identity)
        self._open[identity] = trial
        return config

    def tell(self, config: Config, state: TrialState, values: Sequence[float]) -> None:
        """Learn how a trial ended.

        Args:
            config: Its configuration.
            state: As Optuna calls it.
            values: The best score after each epoch; higher is better.
        """
        trial = self._open.pop(digest_of(config), None)
        if trial is None:
            return  # a configuration that was tried twice: Optuna has learnt it
        if values:
            trial.report(values[-1], len(values))
        self._study.tell(trial, values[-1] if state is TrialState.COMPLETE else None, state=state)

    def recall(self, config: Config) -> None:
        """Take up a trial that an earlier session proposed."""
        identity = digest_of(config)
        if identity not in self._tried:
            self._tried.add(identity)
            # Every value is given, so there is nothing to draw.
            self._open[identity] = self._draw(config, optuna.samplers.RandomSampler(seed=0))[0]

    def _draw(self, given: Mapping[str, object], sampler: optuna.samplers.BaseSampler) -> tuple[optuna.Trial, Config]:
        self._study.sampler = sampler
        if given:
            self._study.enqueue_trial(self._space.optuna_params(dict(given)))  # type: ignore[arg-type]
        trial = self._study.ask()
        return trial, self._space.suggest(trial)

    def _drawn_by(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        seed = derived_seed(self._seed, "sampler", number, attempt) % 2**32
        # A sampler may insist on what it knows to be good; chance finds what is left of a small space.
        return optuna.samplers.RandomSampler(seed=seed) if attempt > ATTEMPTS // 2 else self._sampler.drawn_by(seed)


class BoundedMemory(InMemoryStorage):
    """Optuna's trials in memory, of which a sampler sees the running ones and a bounded number of those that ended.

    These are the `BEST` best and the `recent` latest by number, so which ones depends on what is known and not on
    the order in which it was learnt: a sweep that was taken up again sees what it would have seen.

    Args:
        recent: How many of the latest.
    """

    def __init__(self, recent: int):
        super().__init__()
        self._recent = recent
        self._open: set[int] = set()
        self._best: list[tuple[tuple[float, ...], int]] = []
        self._latest: list[int] = []

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a trial that has not ended."""
        trial_id = super().create_new_trial(study_id, template_trial)
        self._open.add(trial_id)
        return trial_id

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Change a trial's state; one that ended is remembered while it is among the best or the latest."""
        changed = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            self._open.discard(trial_id)
        if state in (TrialState.COMPLETE, TrialState.PRUNED):
            insort(self._best, (_rank(self.get_trial(trial_id)), trial_id))
            insort(self._latest, trial_id)
            del self._best[BEST:], self._latest[: -self._recent]
        return changed

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials that are remembered, by number; nothing here asks for copies."""
        remembered = self._open.union(self._latest, (trial_id for _, trial_id in self._best))
        trials = [self.get_trial(trial_id) for trial_id in sorted(remembered)]
        return [trial for trial in trials if states is None or trial.state in states]


def _rank(trial: FrozenTrial) -> tuple[float, ...]:
    """As TPE ranks ended trials: complete ones by value, then pruned ones by the epoch they reached and by value."""
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None
        return (0, 0, -trial.value)
    epoch, value = max(trial.intermediate_values.items(), default=(0, 0.0))
    return (1, -epoch, -value)
