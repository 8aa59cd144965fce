"""Trials that train together: the driver groups those of one shape and epoch, and a lane trains a group up to a rung.

At the rung the group ends. The trials that go on return to the study, and later take part in other groups.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdsweep import methods
from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import CheckpointError, ModelError
from kdsweep.search.plan import budget_of, rule_of
from kdsweep.search.samplers.random import Random
from kdsweep.search.section import sampler_of
from kdsweep.search.space import OF_ENSEMBLES
from kdsweep.search.trial import Trial
from kdsweep.seeds import derived_seed
from kdsweep.storage import weights
from kdsweep.storage.following import discard
from kdsweep.tasks.losses import LOSSES
from kdsweep.training.grouping import cohort_key
from kdsweep.training.optimizers import OPTIMIZERS
from kdsweep.training.trainer import SAVE_SECONDS, DivergedError
from kdsweep.tune.lease import warm_workbench
from kdsweep.tune.work import Report, Work
from kdsweep.words import count_of
from kdsweep.worker.capacity import Probe
from kdsweep.worker.guarded import Watchdog, prepare
from kdsweep.worker.measures import sizes, speed
from kdsweep.worker.place import WorkerPlace

if TYPE_CHECKING:
    from kdsweep.training.cohort import Cohort

# How many trials are proposed to find a cohort of one shape among them, as a multiple of its size.
LOOK_AHEAD = 2
# How often a sampler that learns from results sees those of all lanes, at least, where cohorts are sized by kdsweep.
LESSONS = 4


class Groups:
    """Collects trials until enough of them can train as one.

    Args:
        spec: The sweep. With `train.cohort: auto`, the size of a group depends on the student and its width.
        lanes: Returns the number of concurrent groups.
        probe: Returns the measurements with which `auto` is decided, None if there are none.
    """

    def __init__(self, spec: SweepSpec, lanes: Callable[[], int], probe: Callable[[], Probe | None]):
        self._spec = spec
        self._probe = probe
        self._lanes = lanes
        self._sizes: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, list[Trial]] = {}
        self._alone: set[str] = set()
        self._apart: set[Hashable] = set()

    @property
    def at_once(self) -> str:
        """What trains at the same time, and why a cohort is smaller than what is fastest."""
        lanes, setting, probe = self._lanes(), self._spec.train.cohort, self._probe()
        if setting == 1 or probe is None:
            return f"{lanes} at a time"
        fastest = probe.cohort_of(setting)
        most = min(fastest, most_useful(self._spec, lanes)) if setting == "auto" else fastest
        groups = f"{count_of(lanes, 'cohort')} of up to {most}" if most > 1 else f"{lanes}"
        why = "" if most == fastest else f" (cohorts of {fastest} are faster, but need more trials)"
        return f"{groups} at a time{why}"

    def next(self, ask: Callable[[], Trial | None]) -> list[Trial]:
        """Return trials of one shape and epoch, at most as many as a cohort has; empty if there are none now.

        Args:
            ask: Returns a further trial, or None if none can start now.
        """
        while not self._full() and not self._far_ahead():
            trial = ask()
            if trial is None:
                break
            key = self._key(trial)
            if key is None:
                return [trial]
            self._waiting.setdefault(key, []).append(trial)
            self._sizes[key] = self._size(trial)
        if not self._waiting:
            return []
        fullest = max(self._waiting, key=lambda key: len(self._waiting[key]) / self._sizes[key])  # the oldest of them
        group, size = self._waiting.pop(fullest), self._sizes[fullest]
        if rest := group[size:]:
            self._waiting[fullest] = rest
        return group[:size]

    def withdraw(self) -> list[Trial]:
        """Return the trials that wait for others, and wait for them no more."""
        waiting = [trial for group in self._waiting.values() for trial in group]
        self._waiting.clear()
        return waiting

    def separate(self, keys: Sequence[str]) -> None:
        """Let trials train alone from now on."""
        self._alone |= set(keys)

    def keep_apart(self, trial: Trial) -> None:
        """Let all trials like this one train alone from now on: their model cannot be stacked."""
        self._apart.add(self._shape(trial))

    def _full(self) -> bool:
        return any(len(group) >= self._sizes[key] for key, group in self._waiting.items())

    def _far_ahead(self) -> bool:
        waiting = sum(map(len, self._waiting.values()))
        return waiting >= LOOK_AHEAD * max((self._sizes[key] for key in self._waiting), default=1)

    def _size(self, trial: Trial) -> int:
        if self._spec.train.cohort != "auto":
            return self._spec.train.cohort
        probe = self._probe()
        if probe is None:
            return 1
        student, width = str(trial.config.get("student", "")), float(str(trial.config["width"]))
        return probe.cohort(student, width, min(most_useful(self._spec, self._lanes()), probe.most_at_once))

    def _key(self, trial: Trial) -> Hashable | None:
        """Return what the trials of a group have in common; None if the trial trains alone."""
        if self._spec.train.cohort == 1 or trial.key in self._alone or self._size(trial) == 1:
            return None
        shape = self._shape(trial)
        return None if shape is None or shape in self._apart else (shape, len(trial.values))

    def _shape(self, trial: Trial) -> Hashable | None:
        config = trial.config
        if self._spec.train.precision == "auto":
            config = {"precision": "float32", **config}  # whichever it is, it is that of all
        shared = cohort_key(trial_recipe(self._spec, config, 0))
        return shared and (shared, *(str(config.get(name)) for name in ("teacher", *sorted(OF_ENSEMBLES))))


def most_useful(spec: SweepSpec, lanes: int) -> int:
    """Return the most trials of a cohort with which all lanes have work, and a sampler that learns has results."""
    learns = not isinstance(sampler_of(spec.search), Random)
    return max(1, spec.search.trials // (LESSONS * lanes) if learns else math.ceil(spec.search.trials / lanes))


def parts_that_train_alone(spec: SweepSpec) -> list[str]:
    """Return the methods, optimizers and losses of a sweep whose steps can be neither stacked nor captured."""
    space = spec.search_space
    return [
        *(name for name in space.methods() if methods.stacks(name) is None),
        *(name for name in space.part_names("optimizer") if not vars(OPTIMIZERS.find(name)).get("stacks")),
        *(name for name in space.part_names("task_loss") if "together" not in vars(LOSSES.find(name))),
    ]


class CohortRun(Work):
    """Train several trials as one computation, up to the next epoch at which the scheduler may stop one.

    Reports `before` and `epochs` as `TrialRun` does, each with its `trial`; `failures`, pairs of a trial's key and the
    error that ended it; and at the end `ended`. If the trials cannot train as one, it reports `apart`, the reason, and
    has trained none. Trials whose saved state is of another epoch than the first one's take no part.

    Args:
        place: The sweep's paths for workers.
        trials: The trials.
    """

    def __init__(self, place: WorkerPlace, trials: Sequence[Trial]):
        self.keys = [trial.key for trial in trials]
        self.name = f"{self.keys[0]}-and-{len(self.keys) - 1}"
        self._configs = [trial.config for trial in trials]
        self._place = place
        self._cohort: Cohort | None = None
        self._saved, self._saved_at = 0, 0.0

    def steps(self) -> Iterator[Report]:
        """Train epoch by epoch, and save every trial's state at the end."""
        bench = warm_workbench(self._place, self.alone)
        folders = {key: self._place.sweep.trial(key) for key in self.keys}
        for folder in folders.values():
            prepare(folder)
        dog = Watchdog(folders[self.keys[0]].hang, bench.spec)
        dog.watch()
        epochs = [saved_epoch(folders[key].state) for key in self.keys]
        taking_part = [place for place, epoch in enumerate(epochs) if epoch == epochs[0]]
        configs = [self._configs[place] for place in taking_part]
        self.keys = [self.keys[place] for place in taking_part]
        try:
            cohort = bench.cohort(configs, derived_seed(bench.spec.seed, "trial"))
        except ModelError as error:
            yield Report("apart", str(error), pause=True)
            return
        if epochs[0]:
            for place, key in enumerate(self.keys):
                try:
                    cohort.load(place, folders[key].state)
                except CheckpointError:
                    discard(folders[key].state)
                    raise
        self._cohort, self._saved, self._saved_at = cohort, cohort.epoch, time.monotonic()
        alone = bench.training(configs[0], 0, self._place.sweep.root / "none")
        student = sizes(alone, bench) | speed(bench, alone, self._place.sweep)
        del alone
        for key, member in zip(self.keys, cohort.members, strict=True):
            yield from (Report("before", metrics | student | {"trial": key}) for metrics in member.history)
        milestones = rule_of(bench.spec, budget_of(bench.spec, configs[0])).milestones
        while not cohort.done:
            dog.watch()
            rows = cohort.run_epoch()
            healthy = [place for place, row in enumerate(rows) if not isinstance(row, DivergedError)]
            may_end = not healthy or cohort.done or cohort.epoch in milestones
            together = {**student, "cohort": len(rows)}
            failures = [(key, row) for key, row in zip(self.keys, rows, strict=True) if isinstance(row, DivergedError)]
            if healthy and failures:
                cohort.keep(healthy)
            survivors = {self.keys[place]: cohort.members[number].history[-1] for number, place in enumerate(healthy)}
            self.keys = list(survivors)
            if may_end or time.monotonic() - self._saved_at > SAVE_SECONDS:
                self.save()
            yield from (Report("failures", failure) for failure in failures)
            yield from (Report("epochs", {**row, **together, "trial": key}) for key, row in survivors.items())
            if may_end:
                break
        self._cohort = None
        cohort.close()
        yield Report("ended", True, pause=True)

    def save(self) -> None:
        """Save the state of every trial, unless there is no new epoch."""
        cohort = self._cohort
        if cohort is None or cohort.epoch == self._saved:
            return
        for place, key in enumerate(self.keys):
            folder = self._place.sweep.trial(key)
            if folder.root.is_dir():  # the driver removes it when the trial has ended
                cohort.save(place, folder.state, folder.best)
        self._saved, self._saved_at = cohort.epoch, time.monotonic()


def saved_epoch(state: Path) -> int:
    """Return the epoch of a saved state; 0 if there is none. A damaged one is removed."""
    if not state.is_file():
        return 0
    try:
        return len(json.loads(weights.metadata(state)["kdsweep"])["history"])
    except (CheckpointError, KeyError, ValueError, TypeError):
        discard(state)
        return 0
