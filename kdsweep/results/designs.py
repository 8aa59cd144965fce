"""The designs of a confirmation: which trainings it needs, given the results so far.

A design is a pure function of the results. An interrupted confirmation therefore continues with the same trainings,
whatever the number of workers and the order in which their results arrive.

`FixedSeeds` trains every student on the same number of fresh seeds. `AutoSeeds` spends a number of trainings where they
decide, in two stages:

1. Selection. The candidates of each group are trained on fresh seeds by `allocation.next_round`: all of them once, the
   best half again, and so on, two trainings per candidate in total. The best mean validation value leads its group.
2. Judging. Each leader, its plain twin and the tuned plain student are trained on further seeds, until the gains over
   both have a verdict, or the trainings are used up. The numbers of seeds at which verdicts are made are fixed before
   the first one. The probability of any false verdict is at most 5 % over all of them (alpha spending, `sequential`),
   all leaders (Bonferroni) and both gains of a leader (Holm).

A leader is judged on seeds that no candidate of its group was selected by. The seeds of the selection overrate it: they
are the ones on which it came first. If a group has only one candidate, nothing is selected, and all its seeds are used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kdsweep.config.spec import SELECTION
from kdsweep.distributions import Config
from kdsweep.results.allocation import next_round, ranking
from kdsweep.results.gains import LEVEL, Verdict, judge_all
from kdsweep.results.sequential import LookPlan
from kdsweep.search.baseline import is_plain, plain_twin
from kdsweep.seeds import run_name
from kdsweep.tasks import Goal

JUDGED = 8  # paired seeds per leader, by default: finds a gain of two spreads in about 90 % of cases
_LOOKS = 10

Training = tuple[Config, int]  # a configuration and a fresh seed
Measured = Mapping[str, Mapping[str, float]]  # the metrics of each finished training, by `run_name`
Gains = Mapping[str, Mapping[str, NDArray[np.float64]]]  # for each kind of gain, the paired differences [S] by trial
Verdicts = Mapping[str, Mapping[str, Verdict]]  # for each kind of gain, the verdicts by trial


@dataclass(frozen=True)
class Chosen:
    """One configuration to confirm.

    Attributes:
        key: The trial's key.
        config: The configuration.
        twin: The same settings without distillation; None for a plain student, which is not compared with itself, and
            if no sample has a label.
        tuned: The best complete plain trial of the same width in the sweep; None if there is none, and for a plain
            student.
        group: Name of its group; each group has a winner.
    """

    key: str
    config: Config
    twin: Config | None
    tuned: Config | None
    group: str = ""

    @classmethod
    def of(cls, key: str, config: Config, tuned: Config | None, group: str = "", alone: bool = False) -> Chosen:
        """Add the plain students with which a configuration is compared.

        Args:
            key: The trial's key.
            config: The configuration.
            tuned: The tuned plain student, if there is one.
            group: Name of its group.
            alone: Whether there are no plain students, because no sample has a label.
        """
        alone = alone or is_plain(config)
        return cls(key, config, None if alone else plain_twin(config), None if alone else tuned, group)

    @property
    def baselines(self) -> dict[str, Config]:
        """The plain students with which it is compared, by the name of the gain."""
        found = {"kd_gain": self.twin, "kd_gain_tuned": self.tuned}
        return {gain: config for gain, config in found.items() if config is not None}

    def settings(self) -> list[Config]:
        """Return the configurations to train for a paired comparison, each once."""
        every = [self.config, *self.baselines.values()]
        return [config for place, config in enumerate(every) if config not in every[:place]]


@dataclass(frozen=True)
class Evidence:
    """The seeds behind the results of one configuration.

    Attributes:
        chosen: The configuration.
        seeds: The fresh seeds by whose validation values it is ordered.
        judged: The paired seeds on which its gains are judged; empty if they are not judged.
    """

    chosen: Chosen
    seeds: tuple[int, ...]
    judged: tuple[int, ...]

    @property
    def scored(self) -> tuple[int, ...]:
        """The seeds of the results on the test split: the paired ones, if there are any."""
        return self.judged or self.seeds


class Design(Protocol):
    """A design.

    Attributes:
        most: The most trainings that it can need, including plain students.
    """

    most: int

    def wanted(self, results: Measured) -> list[Training]:
        """Return all trainings needed so far, finished or not. The confirmation is done if all are finished."""

    def evidence(self, results: Measured) -> list[Evidence]:
        """Return the seeds behind each configuration that was trained. The confirmation is done."""

    def judge(self, gains: Gains, margin: float) -> Verdicts:
        """Judge all gains."""


class FixedSeeds:
    """Trains every student on the same seeds and judges all gains once.

    Args:
        chosen: The configurations to confirm.
        seeds: The fresh seeds.
    """

    def __init__(self, chosen: Sequence[Chosen], seeds: Sequence[int]):
        self._chosen = list(chosen)
        self._seeds = tuple(seeds)
        self.most = len(named(self.wanted({})))

    def wanted(self, results: Measured) -> list[Training]:
        """Return all trainings."""
        return [(config, seed) for one in self._chosen for config in one.settings() for seed in self._seeds]

    def evidence(self, results: Measured) -> list[Evidence]:
        """Return the same seeds for all."""
        return [Evidence(one, self._seeds, self._seeds if one.baselines else ()) for one in self._chosen]

    def judge(self, gains: Gains, margin: float) -> Verdicts:
        """Judge the gains of each kind together, with p corrected by Holm's method."""
        return judge_kinds(gains, margin)


class AutoSeeds:
    """Selects the best candidate of each group, then judges its gains on further seeds; see the module.

    Args:
        chosen: The candidates, in the order of the search within each group.
        trainings: Most trainings, including plain students; None allows `JUDGED` paired seeds per leader.
        seed_of: Returns the fresh seed of a number from 0.
        goal: The objective.
        margin: Largest difference that does not matter; 0 rules out the verdict `same`.

    Attributes:
        leaders: Number of leaders that are judged.
        judged: Most paired seeds per leader; below 2, no gain is judged.
    """

    def __init__(
        self,
        chosen: Sequence[Chosen],
        trainings: int | None,
        seed_of: Callable[[int], int],
        goal: Goal,
        margin: float,
    ):
        self._groups: dict[str, list[Chosen]] = {}
        for one in chosen:
            self._groups.setdefault(one.group, []).append(one)
        self._seed_of = seed_of
        self._goal = goal
        self._margin = margin
        pairs = {
            name: max(len(one.settings()) if one.baselines else 0 for one in group)
            for name, group in self._groups.items()
        }
        self.leaders = sum(cost > 0 for cost in pairs.values())
        # A candidate without rivals is judged on the seeds by which it is ordered.
        selecting = SELECTION * sum(
            len(group) for name, group in self._groups.items() if len(group) > 1 or not pairs[name]
        )
        each = sum(pairs.values())
        most = selecting + JUDGED * each if trainings is None else trainings
        self.judged = (most - selecting) // each if each else 0
        self.most = selecting + self.judged * each if self.judged > 1 else SELECTION * len(chosen)

    @cached_property
    def plan(self) -> LookPlan | None:
        """The numbers of paired seeds at which gains are judged; None if there are too few trainings to judge any."""
        if self.judged < 2:
            return None
        step = 2 * math.ceil(self.judged / (2 * _LOOKS))
        looks = tuple(sorted(range(self.judged, min(2, self.judged - 1), -step)))
        return LookPlan(looks, level=LEVEL / self.leaders)

    def wanted(self, results: Measured) -> list[Training]:
        """Return the trainings of the rounds and looks that have been reached."""
        return [training for group in self._groups.values() for training in self._of_group(group, results)[0]]

    def evidence(self, results: Measured) -> list[Evidence]:
        """Return the seeds of the selection for each candidate, and the paired seeds of the leaders."""
        return [one for group in self._groups.values() for one in self._of_group(group, results)[1]]

    def judge(self, gains: Gains, margin: float) -> Verdicts:
        """Judge both gains of each leader at the look that it has reached."""
        leaders = dict.fromkeys(trial for by_trial in gains.values() for trial in by_trial)
        judged = {
            trial: self._verdicts({kind: gains[kind][trial] for kind in gains if trial in gains[kind]}, margin)
            for trial in leaders
        }
        return {kind: {trial: judged[trial][kind] for trial in by_trial} for kind, by_trial in gains.items()}

    def _verdicts(self, gains: Mapping[str, NDArray[np.float64]], margin: float) -> dict[str, Verdict]:
        """Judge the gains of one leader, by their kinds."""
        assert self.plan is not None
        return self.plan.judge_all(gains, margin=margin)

    def _of_group(self, group: list[Chosen], results: Measured) -> tuple[list[Training], list[Evidence]]:
        """Trainings that a group needs so far, and the evidence if all of them are finished."""
        trainings, values = self._selection(group, results)
        if not finished(trainings, results):
            return trainings, []
        by_key = {one.key: one for one in group}
        order = ranking({key: _if_all_ended(found) for key, found in values.items()})
        leader = by_key[order[0]] if order else None
        judged: tuple[int, ...] = ()
        if leader is not None and leader.baselines and self.plan is not None:
            used = 0 if len(group) == 1 else max(map(len, values.values()))
            more, judged = self._judging(leader, used, self.plan, results)
            trainings += more
        alone = len(group) == 1 and len(judged) > 0
        return trainings, [
            Evidence(
                one,
                judged if alone else self._seeds(0, len(values[one.key])),
                judged if one is leader else (),
            )
            for one in group
        ]

    def _selection(self, group: list[Chosen], results: Measured) -> tuple[list[Training], dict[str, list[float]]]:
        """Trainings of the selection so far, and the validation values of each candidate, higher is better."""
        values: dict[str, list[float]] = {one.key: [] for one in group}
        configs = {one.key: one.config for one in group}
        trainings: list[Training] = []
        budget = SELECTION * len(group)
        while finished(trainings, results):
            known = {key: _if_all_ended(found) for key, found in values.items()}
            batch = next_round(known, budget - len(trainings))
            if not batch:
                break
            for key, count in Counter(batch).items():
                done = len(values[key])
                new = [(configs[key], seed) for seed in self._seeds(done, done + count)]
                trainings += new
                values[key] += [self._validated(results.get(run_name(*training))) for training in new]
        return trainings, values

    def _judging(
        self, leader: Chosen, used: int, plan: LookPlan, results: Measured
    ) -> tuple[list[Training], tuple[int, ...]]:
        """Paired trainings of a leader so far, and the seeds of its latest look."""
        trainings: list[Training] = []
        seeds: tuple[int, ...] = ()
        for look in plan.seeds:
            seeds = self._seeds(used, used + look)
            trainings = [(config, seed) for seed in seeds for config in leader.settings()]
            if not finished(trainings, results) or self._decided(leader, seeds, results):
                break
        return trainings, seeds

    def _decided(self, leader: Chosen, seeds: tuple[int, ...], results: Measured) -> bool:
        gains = {
            kind: paired(leader.config, plain, seeds, results, self._goal) for kind, plain in leader.baselines.items()
        }
        return all(found.verdict != "undecided" for found in self._verdicts(gains, self._margin).values())

    def _seeds(self, first: int, end: int) -> tuple[int, ...]:
        return tuple(self._seed_of(number) for number in range(first, end))

    def _validated(self, measured: Mapping[str, float] | None) -> float:
        return self._goal.score(measured[self._goal.column]) if measured else math.nan


def paired(config: Config, plain: Config, seeds: Sequence[int], results: Measured, goal: Goal) -> NDArray[np.float64]:
    """Paired differences [S] on the test split, positive if the student is better; NaN where a training diverged."""
    ours, theirs = (
        np.array([results[run_name(one, seed)][goal.test_column] for seed in seeds], dtype=float)
        for one in (config, plain)
    )
    return np.asarray(goal.score(1.0) * (ours - theirs))


def judge_kinds(gains: Gains, margin: float) -> Verdicts:
    """Judge the gains of each kind as one family, with p corrected by Holm's method."""
    return {kind: judge_all(by_trial, margin=margin) for kind, by_trial in gains.items()}


def named(trainings: Sequence[Training]) -> dict[str, Training]:
    """The distinct trainings by their names."""
    return {run_name(*training): training for training in trainings}


def finished(trainings: Sequence[Training], results: Measured) -> bool:
    """Whether all trainings have a result."""
    return all(run_name(*training) in results for training in trainings)


def _if_all_ended(values: list[float]) -> list[float]:
    """The values of a candidate for ordering: all NaN if a training diverged, so that it is dropped."""
    return values if all(map(math.isfinite, values)) else [math.nan] * len(values)
