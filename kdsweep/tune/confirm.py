"""Confirmation: retrains the best configurations and plain students on fresh seeds and scores them on test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdsweep.config.spec import SweepSpec
from kdsweep.distributions import Config
from kdsweep.errors import SweepError
from kdsweep.results.confirmed import gain_columns, other_metrics, spread
from kdsweep.results.frames import Results, load_results, write_frame
from kdsweep.search.baseline import PLAIN, is_plain
from kdsweep.search.space import OF_DISTILLATION
from kdsweep.seeds import derived_seed
from kdsweep.storage.files import read_json
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal
from kdsweep.terminal.progress import Progress
from kdsweep.tune.agenda import Background
from kdsweep.tune.work import ConfirmRun, ScoreTeacher, Work, run_name
from kdsweep.worker.place import WorkerPlace

Measured = dict[str, float]


@dataclass(frozen=True)
class Chosen:
    """One configuration to confirm.

    Attributes:
        key: The trial's key.
        config: The configuration.
        twin: The same settings without distillation.
        tuned: The best complete plain trial of the same width in the sweep; None if there is none.
    """

    key: str
    config: Config
    twin: Config
    tuned: Config | None

    @classmethod
    def of(cls, results: Results, key: str) -> Chosen:
        """Look up a trial of a sweep."""
        config = results.config(key)
        plain = results.plain(width=float(config["width"]))
        tuned = results.config(str(plain["trial"][0])) if len(plain) else None
        return cls(key, config, plain_twin(config), tuned)

    def settings(self) -> list[Config]:
        """Return every configuration to train for it."""
        return [self.config, self.twin] + ([self.tuned] if self.tuned else [])


def plain_twin(config: Config) -> Config:
    """Return the same settings without distillation."""
    kept = {key: value for key, value in config.items() if "." not in key and key not in OF_DISTILLATION}
    return {**kept, "method": PLAIN}


class Confirmation:
    """Trains the best configurations and their plain students on fresh seeds, and scores each once on the test split.

    Runs that already have a result are skipped.

    Args:
        spec: The sweep.
        place: The sweep's paths for workers.
        has_test: Prepares the test split and returns whether the data set has one.
        progress: Receives status updates.
    """

    name = "confirm"

    def __init__(
        self,
        spec: SweepSpec,
        place: Background[WorkerPlace],
        has_test: Callable[[], bool],
        progress: Progress,
    ):
        self._spec = spec
        self._sweep = spec.sweep_dir
        self._place = place
        self._has_test = has_test
        self._progress = progress
        self._chosen: list[Chosen] = []
        self._seeds = [derived_seed(spec.seed, "confirm", number) % 2**31 for number in range(spec.confirm.seeds)]
        self._wanted: dict[str, Work] = {}
        self._waiting: list[Work] = []
        self._results: dict[str, Measured] = {}

    @property
    def done(self) -> bool:
        """Whether every run has a result."""
        return self._wanted.keys() <= self._results.keys()

    def begin(self) -> None:
        """Choose the configurations from the results of the search."""
        if not self._has_test():
            self._progress.phase("confirm", f"skipped: {self._spec.dataset.name} has no test split")
            return
        results = load_results(self._sweep.root)
        self._chosen = [Chosen.of(results, str(key)) for key in results.candidates(self._spec.confirm.top)["trial"]]
        place = self._place.result()
        runs = [
            ConfirmRun(place, config, seed) for one in self._chosen for config in one.settings() for seed in self._seeds
        ]
        self._wanted = {run.name: run for run in runs}
        self._results = {name: found for name in self._wanted if (found := _result(self._sweep, name))}
        self._waiting = [run for name, run in self._wanted.items() if name not in self._results]
        count, seeds = len(self._chosen), len(self._seeds)
        self._progress.phase("confirm", f"retraining the best {count} and their plain students on {seeds} fresh seeds")
        self._tell(len(self._results), len(self._wanted))
        if not self._sweep.teacher_test.is_file():
            score = ScoreTeacher(place)
            self._wanted[score.name] = score
            self._waiting.append(score)

    def next(self) -> Work | None:
        """Return the next run."""
        return self._waiting.pop(0) if self._waiting else None

    def on_report(self, work: Work, report: Mapping[str, Any]) -> bool:
        """Record the result of a run.

        Raises:
            SweepError: If the run failed.
        """
        if "failure" in report:
            raise report.get("error") or SweepError(f"confirmation failed: {report['failure']}")
        for measured in [*report.get("confirmed", ()), *report.get("test_scored", ())]:
            self._results[work.name] = measured
            has_teacher = ScoreTeacher.name in self._wanted
            if work.name != ScoreTeacher.name:
                done = len(self._results.keys() - {ScoreTeacher.name})
                self._tell(done, len(self._wanted) - has_teacher)
        return work.name not in self._results

    def give_back(self, work: Work) -> None:
        """Requeue a run whose lane was lost."""
        self._waiting.append(work)

    def on_lost(self, work: Work) -> None:
        """Abort the sweep: a run lost its worker too often.

        Raises:
            SweepError: Always.
        """
        times = self._spec.resources.max_failures
        raise SweepError(f"a confirmation run lost its worker more than {times} times (killed, or out of memory)")

    def close(self) -> None:
        """Write the frame behind `Results.confirmed`, if every run has a result."""
        if self._chosen and self.done:
            write_frame(
                confirmed_frame(self._chosen, self._seeds, self._results, self._spec), self._sweep.confirmed_frame
            )

    def _tell(self, done: int, total: int) -> None:
        self._progress.counted("confirm", done, total, "trainings")


def confirmed_frame(
    chosen: Sequence[Chosen], seeds: Sequence[int], results: Mapping[str, Measured], spec: SweepSpec
) -> pd.DataFrame:
    """Build the frame of confirmed trials.

    Args:
        chosen: The confirmed trials.
        seeds: The fresh seeds.
        results: The metrics of every run, by `run_name`.
        spec: The sweep.
    """
    goal = spec.goal

    def measured(config: Config) -> pd.DataFrame:
        return pd.DataFrame([results[run_name(config, seed)] for seed in seeds])

    def differences(baseline: Callable[[Chosen], Config | None]) -> dict[str, NDArray[np.float64]]:
        """Paired differences by trial. Plain students are their own baseline and are left out."""
        test = goal.test_column
        pairs = {one.key: (one.config, baseline(one)) for one in chosen if not is_plain(one.config)}
        return {
            key: (goal.score(1.0) * (measured(ours)[test] - measured(plain)[test])).to_numpy(dtype=float)
            for key, (ours, plain) in pairs.items()
            if plain is not None
        }

    rows = pd.DataFrame([_row(one, seeds, measured, goal) for one in chosen])
    gains = {"kd_gain": differences(lambda one: one.twin), "kd_gain_tuned": differences(lambda one: one.tuned)}
    judged = gain_columns(gains, [one.key for one in chosen], spec.gain_margin())
    others = other_metrics([measured(one.config) for one in chosen], goal)
    return pd.concat([rows, judged, others], axis=1)


def _row(
    chosen: Chosen, seeds: Sequence[int], measured: Callable[[Config], pd.DataFrame], goal: Goal
) -> dict[str, Any]:
    """Row of one trial without its gains."""
    test = goal.test_column
    ours = measured(chosen.config)
    row: dict[str, Any] = {
        "trial": chosen.key,
        **chosen.config,
        "seeds": len(seeds),
        "parameters": int(ours["parameters"].iloc[0]),
        "size_mb": float(ours["size_mb"].iloc[0]),
        "first_layer_norm": float(ours["first_layer_norm"].iloc[0]),
        goal.column: ours[goal.column].mean(skipna=False),
    }
    row |= spread(test, ours[test])
    row |= spread(f"plain_{test}", measured(chosen.twin)[test])
    tuned = measured(chosen.tuned)[test] if chosen.tuned else pd.Series(float("nan"), ours.index)
    row["tuned_plain_lr"] = float(chosen.tuned["lr"]) if chosen.tuned and "lr" in chosen.tuned else float("nan")
    return row | spread(f"tuned_plain_{test}", tuned)


def _result(sweep: SweepDir, name: str) -> Measured:
    path = sweep.confirmation(name).result
    return read_json(path) if path.is_file() else {}
