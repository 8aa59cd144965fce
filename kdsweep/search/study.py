"""The state of a sweep: which trials were proposed, how far each one is, and how it ended.

Everything is stored in `study.journal` (Optuna's) and `epochs.jsonl`; a Study opened on them again has the same state.
The driver is the only writer. The study knows nothing of Ray.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from kdsweep.search.baseline import PlainLeaders, is_plain, stopping_group
from kdsweep.search.budget import Budget
from kdsweep.search.journal import BatchedJournal, name_objectives, readable
from kdsweep.search.keeping import KeptWeights
from kdsweep.search.objectives import Objectives
from kdsweep.search.plan import Plan, Rules, budget_of
from kdsweep.search.prior import Prior
from kdsweep.search.proposer import Proposer
from kdsweep.search.space import SearchSpace
from kdsweep.search.stopping.base import Value
from kdsweep.search.trial import State, Trial
from kdsweep.search.versions import space_version
from kdsweep.seeds import digest_of
from kdsweep.storage.environment import utc_now
from kdsweep.storage.jsonl import LineLog, read_lines
from kdsweep.storage.logs import no_epochs, no_trial
from kdsweep.storage.paths import SweepDir

_OPTUNA_STATES = {
    State.COMPLETE: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
}


class Study:
    """Proposes trials, records their epochs and stops or pauses the weak ones.

    The caller runs each trial that `ask` returns and reports its epochs. When `report` returns True, it must call
    `leave`; when the trial has ended otherwise, `finish`.

    Args:
        spec: The sweep's settings.
        sweep: The sweep directory.
        space: The spec's space, narrowed by the constraints.

    Attributes:
        running: Unfinished trials that are not paused, by key.
        paused: Trials that wait for their promotion, by key.
        counts: Number of finished trials by state.
        leader: The best trial so far.
        plain: The best plain trial so far.
        last_error: Error of the latest failed trial.
        same_error: Whether all failures had the same error.
        budget: What the search has spent.
    """

    def __init__(self, spec: Plan, sweep: SweepDir, space: SearchSpace):
        self.spec = spec
        self.space = space
        self.running: dict[str, Trial] = {}
        self.paused: dict[str, Trial] = {}
        self.counts = dict.fromkeys(State, 0)
        self.leader: Trial | None = None
        self.plain: Trial | None = None
        self.last_error = ""
        self.same_error = True
        self.sweep = sweep
        self.budget = Budget(spec.search, sweep)
        self._rules = Rules(spec)
        self._leaders = PlainLeaders(space)
        self._with_complete: set[Hashable] = set()
        self._goal = spec.goal
        self._objectives = Objectives(spec.goals)
        self._kept = KeptWeights(spec, sweep, space, self._objectives)
        self._proposer = Proposer.of(
            spec.search, space, spec.seed, prior=Prior.recorded(sweep), objectives=len(spec.goals)
        )
        sweep.root.mkdir(parents=True, exist_ok=True)
        sweep.journal.touch()
        self._backend = BatchedJournal(sweep.journal)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._backend.batch(), readable(sweep):
            self._storage = JournalStorage(self._backend)
            # Never draws anything: every proposal comes with all its values.
            sampler = optuna.samplers.RandomSampler(seed=0)
            if self._storage.get_all_studies():
                self._study = optuna.load_study(study_name=None, storage=self._storage, sampler=sampler)
            else:
                self._study = optuna.create_study(
                    study_name=spec.name, storage=self._storage, sampler=sampler, directions=self._objectives.directions
                )
                name_objectives(self._study, self._objectives.columns)
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        self._version = space_version(sweep)
        self._asked = 0
        self._next_number = 0
        self._to_continue: list[str] = []
        self._replay()

    @property
    def target(self) -> int:
        """Total number of trials."""
        return self._proposer.limit

    @property
    def done(self) -> bool:
        """Whether all trials were proposed and have ended, or the budget is spent."""
        if self.budget.spent:
            return self.waiting == len(self.running) and self._exempt_waiting() is None
        return self._asked >= self.target and not self.running and not self.paused

    @property
    def waiting(self) -> int:
        """Number of unfinished trials that no worker has: interrupted, or paused because the budget is spent."""
        return len(self._to_continue)

    @property
    def unfinished(self) -> int:
        """Number of trials that a larger budget would begin or continue."""
        return max(0, self.target - self._asked) + len(self.running) + len(self.paused)

    def over_budget(self, key: str) -> bool:
        """Whether a running trial must pause because the budget is spent."""
        return self.budget.spent and not self._exempt(key)

    def ask(self) -> Trial | None:
        """Return the next trial to run: an interrupted one, else a promoted one, else a new one.

        If the budget is spent, only a trial that may exceed it.

        Returns:
            A trial, with the epochs that it has trained in `values`. None if no trial can start now; if the study is
            not `done`, a trial may be able to start after one that is running has left or finished.
        """
        self.budget.start()
        if self.budget.spent:
            return self._next_exempt()
        if self._to_continue:
            return self.running[self._to_continue.pop(0)]
        for key in self._rules.promotable():
            if key in self.paused:
                return self._promote(key, len(self.paused[key].values))
        if self._asked >= self.target:
            return None
        config = self._proposer.propose(self._asked)
        number = self._next_number
        key = f"{number:04d}-{digest_of(config)[:6]}"
        # Optuna's `ask` scans all trials for a waiting one. This writes the same trial as a single entry.
        drawn = optuna.trial.FixedTrial(self.space.optuna_params(config))
        self.space.suggest(drawn)  # type: ignore[arg-type]
        entry = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs={"key": key, "config": config, "started_at": utc_now()}
            | ({"space": self._version} if self._version else {}),
        )
        self._storage.create_new_trial(self._study_id, entry)
        trial = Trial(number, key, config)
        self.running[key] = trial
        self._next_number += 1
        self._asked += 1
        return trial

    def give_back(self, key: str) -> None:
        """Return a running trial to the queue."""
        self._to_continue.append(key)

    def report(self, key: str, metrics: Mapping[str, Any]) -> bool:
        """Record one epoch of a trial.

        Args:
            key: The trial's key.
            metrics: `epoch`, the objective, `seconds` and any other metrics.

        Returns:
            Whether the trial must give up its place; then call `leave`.
        """
        trial = self.running[key]
        self._epochs.append({"trial": key, **metrics})
        self.budget.tick()
        return self._note(trial, metrics)

    def locate(self, key: str, where: Mapping[str, str]) -> None:
        """Note where a trial runs.

        Args:
            key: The trial's key.
            where: `node` and `device`, or nothing if they are not known.
        """
        self.running[key].where = dict(where)

    def leave(self, key: str) -> None:
        """Stop a trial for which `report` returned True, or pause it if the stopping rule promotes.

        Args:
            key: The trial's key.
        """
        if not self._rules.promotes:
            self.finish(key, State.PRUNED)
            return
        self._pause(self.running.pop(key))
        self._conclude()

    def finish(self, key: str, state: State, error: str = "") -> None:
        """Record how a trial ended.

        Args:
            key: The trial's key.
            state: The final state; not RUNNING.
            error: One-line reason if it failed.
        """
        self._end(self.running.pop(key), state, error)
        self._conclude()

    def _end(self, trial: Trial, state: State, error: str = "") -> None:
        self._epochs.sync()
        with self._backend.batch():
            summary = {"parameters": trial.parameters, "train_seconds": round(trial.train_seconds, 4), "error": error}
            summary |= {"ended_at": utc_now(), **trial.where}
            trial_id = self._id_of(trial)
            self._storage.set_trial_user_attr(trial_id, "summary", summary)
            # Optuna takes an intermediate value of a stopped trial for its only objective.
            for epoch, value in enumerate(() if self._objectives.several else trial.values, start=1):
                self._storage.set_trial_intermediate_value(trial_id, epoch, value)
            values = self._final_values(trial) if state is State.COMPLETE else None
            self._study.tell(trial.number, values, state=_OPTUNA_STATES[state])
        self._proposer.tell(trial.config, _OPTUNA_STATES[state], self._scores(trial))
        self.counts[state] += 1
        if state is State.COMPLETE:
            self._with_complete.add(self._rules.compared_in(self._group(trial), trial.config))
        if error:
            self.same_error = self.same_error and self.last_error in ("", error)
            self.last_error = error
        if state is State.FAILED:
            self._leaders.ignore(trial.key)
            self._kept.drop(trial)
        else:
            self._kept.end(trial)

    def close(self) -> None:
        """Sync and close the epoch log. Running and paused trials can be resumed later."""
        self._epochs.close()
        self.budget.stop()

    def _exempt(self, key: str) -> bool:
        """Whether a trial may exceed the budget: the best plain trial of a width is always trained to the end."""
        trial = self.running.get(key) or self.paused[key]
        return self._leaders.protects(key, trial.config)

    def _exempt_waiting(self) -> str | None:
        return next(filter(self._exempt, [*self._to_continue, *self.paused]), None)

    def _next_exempt(self) -> Trial | None:
        key = self._exempt_waiting()
        if key is None:
            return None
        if key in self.paused:
            return self._promote(key, budget_of(self.spec, self.paused[key].config))
        self._to_continue.remove(key)
        return self.running[key]

    def _pause(self, trial: Trial) -> None:
        trial.paused_at = len(trial.values)
        self.paused[trial.key] = trial
        self._proposer.pause(trial.config, self._first_scores(trial))

    def _promote(self, key: str, until: int) -> Trial:
        """Continue a paused trial. The journal records it, because a restart could not derive it from the epochs."""
        trial = self.paused.pop(key)
        trial.until = until
        self._storage.set_trial_user_attr(self._id_of(trial), "promoted", [trial.paused_at, until])
        self.running[key] = trial
        return trial

    def _conclude(self) -> None:
        """Once no trial runs, can be promoted or is left to propose: complete each group, then stop what is paused."""
        if self._asked < self.target or self.running or not self.paused:
            return
        if any(key in self.paused for key in self._rules.promotable()):
            return
        with self._backend.batch():
            to_complete = self._last_promotions()
            for key in to_complete:
                self._promote(key, budget_of(self.spec, self.paused[key].config))
            self._to_continue += to_complete
            if not to_complete:
                for key in list(self.paused):
                    self._end(self.paused.pop(key), State.PRUNED)

    def _last_promotions(self) -> list[str]:
        """Return the best paused trial of each group without a complete trial, and the best plain one of each width."""
        ranked = sorted(self.paused.values(), key=lambda t: (-len(t.values), -self._goal.score(t.best), t.number))
        best: dict[Hashable, str] = {}
        for trial in ranked:
            compared_in = self._rules.compared_in(self._group(trial), trial.config)
            if compared_in not in self._with_complete:
                best.setdefault(compared_in, trial.key)
        leaders = {trial.key for trial in ranked if self._leaders.protects(trial.key, trial.config)}
        # By number, as after a restart.
        return sorted(leaders.union(best.values()), key=lambda key: self.paused[key].number)

    def _group(self, trial: Trial) -> Hashable:
        return stopping_group(self.space, trial.config, self.spec.scheduler.group_by)

    def _id_of(self, trial: Trial) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)

    def _note(self, trial: Trial, metrics: Mapping[str, Any]) -> bool:
        self.budget.epochs += 1
        epoch, value = int(metrics["epoch"]), float(metrics[self._goal.column])
        del trial.values[epoch - 1 :]
        trial.values.append(trial.best if self._goal.better(trial.best, value) else value)
        trial.train_seconds += float(metrics["seconds"])
        trial.parameters = int(metrics.get("parameters", trial.parameters))
        if self.leader is None or self._goal.better(trial.best, self.leader.best):
            self.leader = trial
        if is_plain(trial.config) and (self.plain is None or self._goal.better(trial.best, self.plain.best)):
            self.plain = trial
        score = self._goal.score(trial.best)
        self._leaders.note(trial.key, trial.config, score)
        rule = self._rules.of(trial.config)
        if "width" in self.spec.scheduler.group_by and not self.space.width_of(trial.config).finite:
            rule.note_width(trial.key, float(trial.config["width"]))
        if self._objectives.several:
            self._objectives.note(trial.scores, metrics)
        at_rung = trial.scores[-1] if self._objectives.several else score
        stop = rule.reached(self._group(trial), trial.key, epoch, at_rung)
        if self._rules.promotes:
            return stop and epoch > trial.until
        return stop and not self._leaders.protects(trial.key, trial.config)

    def _final_values(self, trial: Trial) -> list[float]:
        return self._objectives.values(trial.scores[-1]) if self._objectives.several else [trial.best]

    def _scores(self, trial: Trial) -> Sequence[Value]:
        """Convert a trial's values to scores for the sampler: higher is better."""
        return trial.scores if self._objectives.several else self._first_scores(trial)

    def _first_scores(self, trial: Trial) -> list[float]:
        return [self._goal.score(value) for value in trial.values]

    def _replay(self) -> None:
        """Restore the state from the logs: trials, their epochs in order of arrival, and the stopping rule."""
        ended: dict[str, FrozenTrial] = {}
        everyone: dict[str, Trial] = {}
        for frozen in self._study.get_trials(deepcopy=False):
            self._next_number += 1
            if "key" not in frozen.user_attrs:
                # A crash tore this entry during writing. No work was done on it, and it must not run again.
                if not frozen.state.is_finished():
                    self._storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)
                continue
            trial = Trial(frozen.number, frozen.user_attrs["key"], frozen.user_attrs["config"])
            trial.paused_at, trial.until = frozen.user_attrs.get("promoted", (0, 0))
            everyone[trial.key] = trial
            self._proposer.recall(trial.config)
            self._asked += 1
            if frozen.state == TrialState.FAIL:
                self._leaders.ignore(trial.key)
            if frozen.state.is_finished():
                ended[trial.key] = frozen
            else:
                self.running[trial.key] = trial
        stopped: dict[str, int] = {}
        for entry in read_lines(self.sweep.epochs_log, wanted=("trial", "epoch", *self._objectives.columns, "seconds")):
            key, epoch = entry["trial"], int(entry["epoch"])
            if key not in everyone:
                raise no_trial(self.sweep, key)
            if self._note(everyone[key], entry):
                stopped[key] = epoch
            elif epoch > stopped.get(key, epoch):
                del stopped[key]  # an earlier version, whose groups were larger, let it continue
        states = {state: name for name, state in _OPTUNA_STATES.items()}
        lost = [key for key, frozen in ended.items() if frozen.state != TrialState.FAIL and not everyone[key].values]
        if lost:
            raise no_epochs(self.sweep, lost[0])
        kept: list[Trial] = []
        for key, frozen in ended.items():
            if paused_at := everyone[key].paused_at:
                self._proposer.pause(everyone[key].config, self._first_scores(everyone[key])[:paused_at])
            self._proposer.tell(everyone[key].config, frozen.state, self._scores(everyone[key]))
            self.counts[states[frozen.state]] += 1
            if frozen.state != TrialState.FAIL:
                kept.append(everyone[key])
            if frozen.state == TrialState.COMPLETE:
                trial = everyone[key]
                self._with_complete.add(self._rules.compared_in(self._group(trial), trial.config))
        self._kept.restore(kept)
        self._epochs = LineLog(self.sweep.epochs_log)
        for key in list(self.running):
            trial = self.running[key]
            if len(trial.values) >= budget_of(self.spec, trial.config):
                self._end(self.running.pop(key), State.COMPLETE)
            elif key in stopped and self._rules.promotes:
                self._pause(self.running.pop(key))
            elif key in stopped:
                self._end(self.running.pop(key), State.PRUNED)
            elif trial.paused_at:
                self._proposer.pause(trial.config, self._first_scores(trial)[: trial.paused_at])
        self._to_continue = list(self.running)
        self._conclude()
