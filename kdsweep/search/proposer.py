"""Proposes new configurations: Optuna's samplers over the known trials.

Proposals are drawn in a separate in-memory study. Only accepted ones are written to the sweep's journal, so that a
duplicate can be drawn again without leaving a trace.

A sampler's cost grows with its history, and a worker waits for each proposal. So it sees only the best and the latest
finished trials; the journal keeps all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import cast

import optuna
from optuna.trial import TrialState

from kdsweep.distributions import Config
from kdsweep.search.baseline import PlainShare, is_plain, size_of
from kdsweep.search.faults import point_faults
from kdsweep.search.memory import BoundedMemory
from kdsweep.search.prior import Prior, PriorTrial, RankedMemory, drawn_size
from kdsweep.search.samplers import Sampler
from kdsweep.search.section import SearchSection, sampler_of
from kdsweep.search.space import SearchSpace
from kdsweep.search.stopping.base import Value
from kdsweep.search.turns import WidthTurns
from kdsweep.seeds import derived_seed, digest_of

ATTEMPTS = 20
REDRAWS = 6  # for the width that is due
RECENT = 100


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
        prior: What earlier sweeps found.
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
        balance: bool = False,
        prior: Prior = Prior(),  # noqa: B008 - immutable
        objectives: int = 1,
    ):
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._recent = recent
        self._objectives = objectives
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._prior = prior.trials
        self._all = History(space, recent, balance, prior.trials, objectives)
        self._tried: set[str] = set()
        listed = list(self._sampler.listed(space))
        # A point of an earlier sweep that a changed space no longer holds is replaced by a draw.
        points = [*points, *({} if point_faults(space, point) else point for point in prior.points)]
        self._given = [*points, *(config for config in listed if config not in points)]
        self.limit = min(trials, len(self._given)) if listed else trials
        # A sampler that lists its configurations tries all of them.
        self._share = PlainShare(space, 0.0 if listed else plain_share)
        self._turns = WidthTurns(space, balance)
        self._plain: dict[Hashable, History] = {}
        self._plain_sampler = with_startup(sampler, 1 / self._share.sizes)

    @classmethod
    def of(
        cls,
        search: SearchSection,
        space: SearchSpace,
        seed: int,
        recent: int = RECENT,
        prior: Prior = Prior(),  # noqa: B008 - immutable
        objectives: int = 1,
    ) -> Proposer:
        """Create the proposer of a sweep."""
        return cls(
            sampler_of(search),
            space,
            seed,
            search.trials,
            search.points,
            search.plain_share,
            recent,
            search.balance == "width",
            prior,
            objectives,
        )

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
            values: The best score so far after each epoch; higher is better. With several objectives, a tuple of them.
        """
        for history in self._histories(config) if self._space.holds(config) else ():
            history.tell(config, state, values)

    def pause(self, config: Config, values: Sequence[float]) -> None:
        """Show the sampler a paused trial as one stopped at this epoch, until it pauses again or ends.

        Args:
            config: The trial's configuration.
            values: As for `tell`, with one objective.
        """
        for history in self._histories(config) if self._space.holds(config) else ():
            history.pause(config, values)

    def recall(self, config: Config) -> None:
        """Restore a trial proposed in an earlier session, unless the space has changed and does not hold it now."""
        if not self._space.holds(config):
            return
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
            if due.items() <= config.items():
                break
            self._all.reject(trial)
            given = due if redraw == REDRAWS else {}
            trial, config = self._all.draw(given, self._drawn_by(self._sampler, number, attempt, redraw))
        return trial, config

    def _histories(self, config: Config) -> list[History]:
        """Return the histories that a configuration belongs to."""
        return [self._all, self._plain_history(config)] if self._share.active and is_plain(config) else [self._all]

    def _plain_history(self, config: Config) -> History:
        size = size_of(self._space, config)
        if size not in self._plain:
            prior = [t for t in self._prior if is_plain(t.config) and size_of(self._space, t.config) == size]
            self._plain[size] = History(self._space, self._recent, prior=prior, objectives=self._objectives)
        return self._plain[size]

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
        prior: Trials of earlier sweeps.
        objectives: Number of objectives; with several, neither `balance` nor `prior`.
    """

    def __init__(
        self,
        space: SearchSpace,
        recent: int,
        balance: bool = False,
        prior: Sequence[PriorTrial] = (),
        objectives: int = 1,
    ):
        self._space = space
        sized = partial(drawn_size, space) if balance else None
        self._memory = RankedMemory(space, recent, prior) if prior else BoundedMemory(recent, sized)
        self._several = objectives > 1
        self._study = optuna.create_study(storage=self._memory, directions=["maximize"] * objectives)
        self._open: dict[str, optuna.Trial] = {}
        self._idle = optuna.samplers.RandomSampler(seed=0)  # draws nothing where every value is given

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
        # Every value is given, so there is nothing to draw. Optuna's `ask` would look at all running trials, and while
        # a sweep is restored, all trials run.
        given = optuna.trial.FixedTrial(self._space.optuna_params(config))
        self._space.suggest(given)  # type: ignore[arg-type]
        entry = optuna.trial.create_trial(
            state=TrialState.RUNNING, params=given.params, distributions=given.distributions
        )
        self._study.sampler = self._idle  # another one would draw for `Trial`
        trial_id = self._memory.create_new_trial(self._study._study_id, entry)
        self.accept(config, optuna.Trial(self._study, trial_id))

    def pause(self, config: Config, values: Sequence[float]) -> None:
        """Show a paused trial to samplers; see `Proposer.pause`."""
        trial = self._open.get(digest_of(config))
        if trial is not None and values:
            self._memory.note_values(trial._trial_id, values)
            self._memory.pause(trial._trial_id, values[-1], len(values))

    def tell(self, config: Config, state: TrialState, values: Sequence[Value]) -> None:
        """Record how a trial ended; see `Proposer.tell`."""
        trial = self._open.pop(digest_of(config), None)
        if trial is None:
            return  # tried twice; Optuna already has its result
        if self._several:
            self._tell_several(trial, state, values)
        else:
            self._tell_one(trial, state, cast("Sequence[float]", values))

    def _tell_one(self, trial: optuna.Trial, state: TrialState, values: Sequence[float]) -> None:
        if values:
            trial.report(values[-1], len(values))
        if state is not TrialState.FAIL:
            self._memory.note_values(trial._trial_id, values)
        self._study.tell(trial, values[-1] if state is TrialState.COMPLETE else None, state=state)

    def _tell_several(self, trial: optuna.Trial, state: TrialState, values: Sequence[Value]) -> None:
        """Record a stopped trial as complete: Optuna keeps no intermediate values of several objectives.

        The trials that stopped it have better values at similar costs, so samplers do not mistake it for a good one.
        """
        if state is TrialState.FAIL or not values:
            self.reject(trial)
        else:
            self._study.tell(trial, cast("tuple[float, ...]", values[-1]), state=TrialState.COMPLETE)
