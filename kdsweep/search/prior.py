"""What a search knows from earlier sweeps: configurations to try first, and finished trials for the sampler.

Values of different sweeps cannot be compared: budgets differ, and a value at one width says nothing at another. So a
sampler that knows earlier trials sees ranks instead of values: each trial, also of this sweep, counts by its rank among
the trials of its own sweep and width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from kdsweep.distributions import Config, Constant
from kdsweep.search.baseline import size_of
from kdsweep.search.memory import BoundedMemory, rank
from kdsweep.search.space import SearchSpace
from kdsweep.storage.files import read_json
from kdsweep.storage.paths import SweepDir


@dataclass(frozen=True)
class PriorTrial:
    """A finished trial of an earlier sweep.

    Attributes:
        source: Number of the sweep among those of `search.warm_start`.
        config: Its configuration.
        complete: Whether it was trained to the end.
        epochs: Number of epochs trained.
        score: Best value of the objective; higher is better.
    """

    source: int
    config: Config
    complete: bool
    epochs: int
    score: float

    @property
    def order(self) -> tuple[float, ...]:
        """Sort key, best first, as for the trials of this sweep."""
        return (0, 0, -self.score) if self.complete else (1, -self.epochs, -self.score)


@dataclass(frozen=True)
class Prior:
    """What was taken from earlier sweeps.

    Attributes:
        points: Configurations to try first.
        trials: Finished trials.
    """

    points: tuple[Config, ...] = ()
    trials: tuple[PriorTrial, ...] = field(default=())

    @classmethod
    def recorded(cls, sweep: SweepDir) -> Prior:
        """Read what a sweep took at its start; empty if it took nothing."""
        if not sweep.warm_start.is_file():
            return cls()
        sources: list[dict[str, Any]] = read_json(sweep.warm_start)["sources"]
        points = [point for source in sources for point in source["points"]]
        trials = [PriorTrial(number, **trial) for number, source in enumerate(sources) for trial in source["trials"]]
        return cls(tuple(points), tuple(trials))


class RankedMemory(BoundedMemory):
    """Shows samplers the trials of earlier sweeps too, and ranks instead of values.

    Args:
        space: The search space.
        recent: See `BoundedMemory`.
        prior: Earlier trials; those that the space does not hold are left out.
    """

    def __init__(self, space: SearchSpace, recent: int, prior: Sequence[PriorTrial]):
        super().__init__(recent)
        self._space = space
        groups: dict[Hashable, list[PriorTrial]] = defaultdict(list)
        for trial in prior:
            if space.holds(trial.config):
                groups[trial.source, size_of(space, trial.config)].append(trial)
        ranked: list[tuple[PriorTrial, float]] = []
        for group in groups.values():
            ordered = sorted(group, key=lambda trial: trial.order)
            ranked += zip(ordered, _shares(len(ordered)), strict=True)
        self._earlier = [_frozen(space, trial, share, -1 - index) for index, (trial, share) in enumerate(ranked)]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the earlier trials and the visible ones of this sweep, finished ones as complete with their rank."""
        own = super().get_all_trials(study_id, deepcopy)
        groups: dict[Hashable, list[FrozenTrial]] = defaultdict(list)
        for trial in own:
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                groups[drawn_size(self._space, trial.params)].append(trial)
        shares: dict[int, float] = {}
        for group in groups.values():
            ordered = sorted(group, key=lambda trial: (rank(trial), trial.number))
            shares |= dict(zip((trial.number for trial in ordered), _shares(len(ordered)), strict=True))
        shown = [_as_rank(trial, shares[trial.number]) if trial.number in shares else trial for trial in own]
        return [trial for trial in [*self._earlier, *shown] if states is None or trial.state in states]


def drawn_size(space: SearchSpace, params: Mapping[str, Any]) -> Hashable:
    """Return `size_of` the configuration that Optuna knows by these parameters, which lack constants."""
    config = {name: values.every()[0] for name, values in space.shared.items() if isinstance(values, Constant)}
    config |= {name: params[name] for name in ("student", "epochs", "width") if name in params}
    if (own := f"width[{config.get('student')}]") in params:
        config["width"] = params[own]
    return size_of(space, {"width": "", **config})


def _shares(count: int) -> list[float]:
    """Return the expected quantiles of `count` draws, best first."""
    return [(count - place) / (count + 1) for place in range(count)]


def _as_rank(trial: FrozenTrial, share: float) -> FrozenTrial:
    ranked = copy(trial)
    ranked.state, ranked.values = TrialState.COMPLETE, [share]
    return ranked


def _frozen(space: SearchSpace, trial: PriorTrial, share: float, number: int) -> FrozenTrial:
    drawn = optuna.trial.FixedTrial(space.optuna_params(trial.config))
    space.suggest(drawn)  # type: ignore[arg-type]
    frozen = optuna.trial.create_trial(
        state=TrialState.COMPLETE, value=share, params=drawn.params, distributions=drawn.distributions
    )
    frozen.number = number  # below those of this sweep: TPE gives older trials less weight
    return frozen
